"""What tests share, each in a module that is a noun.

| module | offers |
|---|---|
| `root` | `Root`, a tree whose daemon is started, killed and started again; `configure(inbox={...})`; the fixture `root`; `command`, an admin's |
| `pictures` | one daemon for all pictures that need no settings of their own: the fixture `pictures` |
| `claims` | what a stage may say of a PNG, entry by entry, for tests to spoil |
| `told` | what a daemon tells: its log, its metrics, its health; a free port |
| `stages` | stages that misbehave when the name of the uploaded file tells them to (`STAGES` of `root` is the environment for it) |
| `disks` | filesystems on images, mounted for real, and a tree on one |
| `samba` | a real smbd with the shares of `config/samba`, and its client |
| `prometheus` | a real Prometheus with the rules of `config/prometheus` |
| `panel` | a real panel, and a client that can ask for anything |
| `inside` | a panel in the process of the test, whose patience can be changed |
| `writer` | another user of the machine who keeps a file open and writes to it later |
| `machine` | a machine of its own for the documents' commands: `systemctl` and `unit_sandbox` stand in for systemd there |
| `power` | what a disk may hold after a power cut |
| `loops` | the loops and fences of the package, found by reading it |
"""
