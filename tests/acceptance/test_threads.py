"""Threads under the filter of system calls: of musl, of glibc and of OpenMP, each in a real program."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from cytowatch.decoder import seccomp
from tests.needs import needs

#: It reads the filter for its own number, installs it as a decoder process does, and then works in threads.
PROGRAM = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <unistd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#ifdef _OPENMP
#include <omp.h>
#endif

static struct sock_filter code[4096];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t woken = PTHREAD_COND_INITIALIZER;
static int arrived;
static long sum;

static void *work(void *given) {
    char *room = malloc(1 << 20);
    memset(room, 1, 1 << 20);
    long own = 0;
    for (int i = 0; i < 1 << 20; i++) own += room[i];
    free(room);
    pthread_mutex_lock(&lock);
    sum += own;
    if (++arrived == 8) pthread_cond_broadcast(&woken);
    while (arrived < 8) pthread_cond_wait(&woken, &lock);
    pthread_mutex_unlock(&lock);
    return given;
}

int main(void) {
    size_t size = 0, got;
    while (size < sizeof code && (got = fread((char *)code + size, 1, sizeof code - size, stdin))) size += got;
    struct sock_fprog program = {.len = size / sizeof code[0], .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return 10;
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) return 11;
    if (fork() != -1) return 12;
    for (int round = 0; round < 20; round++) {
        pthread_t threads[8];
        arrived = 0;
        for (int i = 0; i < 8; i++) if (pthread_create(&threads[i], 0, work, 0)) return 13;
        for (int i = 0; i < 8; i++) if (pthread_join(threads[i], 0)) return 14;
    }
    if (sum != 20L * 8 * (1 << 20)) return 15;
#ifdef _OPENMP
    long count = 0;
    omp_set_num_threads(4);
#pragma omp parallel for reduction(+ : count)
    for (int i = 0; i < 1000; i++) count += omp_get_num_threads();
    if (count != 4000) return 16;
#endif
    puts("done");
    return 0;
}
"""

KINDS = {
    "musl": ["musl-gcc", "-static", "-idirafter", "/usr/include", "-idirafter",
             f"/usr/include/{platform.machine()}-linux-gnu"],
    "glibc": ["gcc"],
    "OpenMP": ["gcc", "-fopenmp"],
}  # fmt: skip


@needs("musl-gcc", "gcc")
@pytest.mark.skipif(not seccomp.can(), reason="this kernel has no filters of system calls")
@pytest.mark.parametrize("kind", KINDS)
def test_threads_work_under_the_filter(tmp_path: Path, kind: str) -> None:
    """They start, wait for each other, take memory and end, 20 times over; a new process is denied all the same."""
    source, program = tmp_path / "threads.c", tmp_path / "threads"
    source.write_text(PROGRAM)
    subprocess.run([*KINDS[kind], "-O1", "-pthread", source, "-o", program], check=True)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        said, _ = running.communicate(seccomp.program(platform.machine(), running.pid), timeout=60)
    assert (running.returncode, said) == (0, b"done\n")
