"""The code page that names without a stated encoding are written in: the one in which they read most like names.

Source: JIS X 0208, GB 2312, Big5 and KS X 1001, in which the common characters stand first; TIS 620, in which a
vowel or a tone belongs to the letter before it
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

__all__ = ["guess", "is_wide", "read"]

#: This many bytes of names are enough for a guess, the shortest names first.
_MOST_LOOKED_AT_BYTES = 16_384
_WEST = frozenset("äöüÄÖÜßéèàçñáíóúåæøÅÆØêâÉ")
#: Marks that stand in names, though not often.
_MARKS = frozenset("–—‘’“”°²³µ·§№×")
_CENTRAL = frozenset("ąćęłńóśźżĄĆĘŁŃÓŚŹŻáčďéěíňřšťúůýžÁČĎÉĚÍŇŘŠŤÚŮÝŽőűŐŰöüÖÜäăâîđ")
_TURKISH = frozenset("ğışĞİŞçöüÇÖÜâ")
_BALTIC = frozenset("ąčęėįšųūžĄČĘĖĮŠŲŪŽāēģīķļņĀĒĢĪĶĻŅõäöüÕÄÖÜ")
#: Vowels that are written before their letter; and vowels, tones and signs that stand behind, above or below it.
_THAI_BEFORE = frozenset("เแโใไ")
_THAI_BEHIND = frozenset(
    "ะาำๅ\u0e31\u0e34\u0e35\u0e36\u0e37\u0e38\u0e39\u0e3a"
    + "".join(map(chr, range(0x0E47, 0x0E4F)))
)
#: Characters that are frequent in names: they distinguish Chinese from Korean where the bytes could be either.
_HANZI = frozenset(
    "的一是不了人我在有他这大来上个国中到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可"
    "里后小么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已"
    "老从动两长知民样现分将外但身些与高意进把法此实回二理美点月明其种声全工己话儿者向情部正名定女问"
    "力机给等几很业最间新什打便位因重被走电四第门相次东政海口使教西再平真听世气信北少关并内加化由却"
    "代军产入先山五太水万市眼体别处总才场师书比住员九笑性通目华报立马命张活难神数件安表原车白应路期"
    "叫死常提感金何更反合放做系计或司利受光王果亲界及今京务制解各任至清物台象记边共风战干接它许八特"
    "觉望直服毛林题建南度统色字请交爱让认算论百吃义科怎元社术结六功指思非流每青管夫连远资队跟带花快"
    "条院变联言权往展该领传近留红治决周保达办运武半候七必城父强步完革深区即求品士转量空甚众技轻程告"
    "江语英基派满式李息写呢识极令黄德收脸钱党倒未持取设始版双历越史商千片容研像找友孩站广改议形委早"
    "病理切片检体组织肿瘤肝胃肺肾脑乳腺癌例号染免疫图样本标患者姓扫描模简测试"
    "病理組織檢體切片樣本標醫院圖編號測試掃描國學會時間開東長問資料夾新增"
)
_HANGUL = frozenset(
    "이다는에의가고을를은하지로도사한서기인자나아리어시그대일만라과전수정부해보원제여주장조성성상구"
    "것들면연안비신소동요있공오용선영국위유내러니진방무생관경미마스동계명화실트중세회물간단발적산계교"
    "체행업문학번우호모세바드금분강거년식말남재병직결치양심노당법통개감할여라파포외반각입출력본환박"
    "김최검색염위대폐간암조직슬라이드이미지파일새폴더복사본케이스테스트"
)


def read(raw: bytes, encoding: str) -> str | None:
    """`raw` as text; None if it is not of that encoding."""
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        return None


def guess(raws: Iterable[bytes]) -> str:
    """The encoding in which `raws` read most like names; the zip's own old one if none does.

    >>> guess(["検体.jpg".encode("cp932")]), guess(["Größe.svs".encode("cp850")])
    ('cp932', 'cp437')
    """
    looked_at: list[bytes] = []
    left = _MOST_LOOKED_AT_BYTES
    for raw in sorted(dict.fromkeys(raws), key=len):
        if looked_at and left < len(raw):
            break
        looked_at.append(raw)
        left -= len(raw)
    costs = {one.name: one.handicap + _cost(looked_at, one) for one in _CANDIDATES}
    return min(costs, key=costs.__getitem__)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """`cost` is how odd a character of it is in a name, given its bytes; 0 is common, 1 odd."""

    name: str
    cost: Callable[[str, bytes], float]
    is_latin: bool = False
    is_wide: bool = False
    handicap: float = 0.0


def _cost(raws: list[bytes], candidate: _Candidate) -> float:
    """The mean oddity of the characters that are not ASCII."""
    total, count = 0.0, 0
    for raw in raws:
        text = read(raw, candidate.name)
        if text is None:
            total, count = total + 5.0, count + 1
            continue
        for before, char, behind in _with_neighbours(text):
            total += candidate.cost(char, char.encode(candidate.name, "replace"))
            total += _context(before, char, behind, candidate)
            count += 1
    return total / max(1, count)


def _with_neighbours(text: str) -> Iterable[tuple[str, str, str]]:
    around = f" {text} "
    for at in range(1, len(around) - 1):
        if not around[at].isascii():
            yield around[at - 1], around[at], around[at + 1]


def _context(before: str, char: str, behind: str, candidate: _Candidate) -> float:
    """How odd a character is where it stands."""
    ascii_letters = [one.isascii() and one.isalpha() for one in (before, behind)]
    if candidate.is_wide:
        if "\uff61" <= char <= "\uff9f":
            return 0.8 * any(ascii_letters)
        # A lone one inside of a word is two letters of another code page.
        small = sum(one.isascii() and one.islower() for one in (before, behind))
        return 1.5 if small == 2 else 0.4 * small
    # "\\" behind one is the second half of a wide character.
    odd = float(behind == "\\")
    if candidate.cost is _thai:
        return odd + _context_of_thai(before, char, behind) + sum(ascii_letters)
    if not char.isalpha():
        return odd + 0.8 * (before.isalpha() and behind.isalpha())
    odd += 0.7 if char.isupper() and before.islower() else 0.0
    others = sum(not one.isascii() and one.isalpha() for one in (before, behind))
    if not candidate.is_latin:
        odd += 0.1 if char.isupper() and (before.isupper() or behind.isupper()) else 0.0
        odd += 0.7 if not others else 0.0
        odd += 1.0 if char in _FINAL and behind.isalpha() else 0.0
        return odd + sum(ascii_letters)
    odd += 0.4 if char.islower() and before.isupper() and behind.isupper() else 0.0
    # Accents stand single in their words.
    return odd + (0.0, 0.3, 1.0)[others] + (0.6 if not any(ascii_letters) else 0.0)


def _context_of_thai(before: str, char: str, behind: str) -> float:
    """Bytes of another script put a vowel or a tone where no letter bears it."""
    odd = 0.0
    if char in _THAI_BEHIND and (not _is_thai(before) or before in _THAI_BEFORE):
        odd += 1.5
    if char in _THAI_BEFORE and (not _is_thai(behind) or behind in _THAI_BEHIND):
        odd += 1.5
    return odd + 0.7 * (not _is_thai(before) and not _is_thai(behind))


def _is_thai(char: str) -> bool:
    return "\u0e01" <= char <= "\u0e4e"


def _latin(often: frozenset[str]) -> Callable[[str, bytes], float]:
    def cost(char: str, _raw: bytes) -> float:
        if char in often:
            return 0.05
        if char.isalpha() and char < "\u0250":
            return 0.2 if char.isalpha() and char.lower() in "ãõëïùœôûîãçà" else 0.6
        return _mark(char)

    return cost


def _mark(char: str) -> float:
    """What is not a letter of the script: lines and blocks of DOS are the oddest."""
    if char in _MARKS:
        return 0.4
    return 2.0 if "\u2500" <= char <= "\u25ff" or "\x80" <= char < "\xa0" else 1.2


def _script(first: str, last: str) -> Callable[[str, bytes], float]:
    def cost(char: str, _raw: bytes) -> float:
        return 0.0 if first <= char <= last and char.isalpha() else _mark(char)

    return cost


def _thai(char: str, _raw: bytes) -> float:
    return 0.0 if _is_thai(char) else _mark(char)


def _cyrillic(char: str, _raw: bytes) -> float:
    small = char.lower()
    if small in "оеаинтсрвлкм":
        return 0.0
    if small in "дпуягьзбчыхй":
        return 0.08
    return 0.2 if "Ё" <= char <= "ґ" and char.isalpha() else _mark(char)


def _japanese(char: str, raw: bytes) -> float:
    if "\u3041" <= char <= "\u30fe":
        return 0.0
    if "\uff61" <= char <= "\uff9f":
        return 0.27
    if "\u4e00" <= char <= "\u9fff" and len(raw) == 2:
        # The common characters of JIS X 0208, in Shift JIS and in EUC.
        return 0.1 if raw[0] in _COMMON_SJIS or (raw[0] in _COMMON_EUC and raw[1] > 0xA0) else 0.5
    return 1.0 if char.isalpha() and not "\uff21" <= char <= "\uff5a" else 0.4


def _common(
    often: frozenset[str], first: bytes, last: bytes, trail: int = 0
) -> Callable[[str, bytes], float]:
    """Those that stand often; the common ones of a standard, from `first` to `last`; the rest."""

    def cost(char: str, raw: bytes) -> float:
        if char in often:
            return 0.0
        if first <= raw <= last and raw[-1] >= trail:
            return 0.25
        if "\ue000" <= char <= "\uf8ff" or len(raw) != 2:
            return 2.0
        return 0.8 if char.isalpha() else 0.6

    return cost


_COMMON_SJIS = range(0x88, 0x99)
_COMMON_EUC = range(0xB0, 0xD0)
#: Letters of Hebrew and Greek that only end a word.
_FINAL = frozenset("םןףךץς")
#: In the order in which one wins where two fit alike. Explorer writes the code page of DOS, others
#: that of Windows; what is missing here can be configured.
_CANDIDATES = (
    _Candidate("cp932", _japanese, is_wide=True),
    _Candidate("gbk", _common(_HANZI, b"\xb0\xa1", b"\xd7\xfe", 0xA1), is_wide=True),
    _Candidate("big5", _common(_HANZI, b"\xa4\x40", b"\xc6\x7e"), is_wide=True, handicap=0.02),
    _Candidate(
        "cp949", _common(_HANGUL, b"\xb0\xa1", b"\xc8\xfe", 0xA1), is_wide=True, handicap=0.02
    ),
    _Candidate("euc_jp", _japanese, is_wide=True, handicap=0.05),
    _Candidate("cp437", _latin(_WEST), is_latin=True),
    _Candidate("cp850", _latin(_WEST), is_latin=True, handicap=0.01),
    _Candidate("cp1252", _latin(_WEST), is_latin=True, handicap=0.02),
    _Candidate("cp866", _cyrillic),
    _Candidate("cp1251", _cyrillic, handicap=0.01),
    _Candidate("koi8-r", _cyrillic, handicap=0.03),
    _Candidate("cp852", _latin(_CENTRAL), is_latin=True, handicap=0.2),
    _Candidate("cp1250", _latin(_CENTRAL), is_latin=True, handicap=0.21),
    _Candidate("cp857", _latin(_TURKISH), is_latin=True, handicap=0.2),
    _Candidate("cp1254", _latin(_TURKISH), is_latin=True, handicap=0.17),
    _Candidate("cp775", _latin(_BALTIC), is_latin=True, handicap=0.2),
    _Candidate("cp1257", _latin(_BALTIC), is_latin=True, handicap=0.21),
    _Candidate("cp737", _script("Ά", "ώ"), handicap=0.055),
    _Candidate("cp862", _script("א", "ת"), handicap=0.05),
    _Candidate("cp720", _script("ء", "ي"), handicap=0.05),
    _Candidate("cp1253", _script("Ά", "ώ"), handicap=0.075),
    _Candidate("cp1255", _script("א", "ת"), handicap=0.04),
    _Candidate("cp1256", _script("ء", "ي"), handicap=0.07),
    _Candidate("cp874", _thai, handicap=0.2),
)
_WIDE = frozenset(one.name for one in _CANDIDATES if one.is_wide) | {
    "gb18030",
    "shift_jis",
    "euc_kr",
}


def is_wide(encoding: str) -> bool:
    """Whether its characters may have two bytes, of which the second may be ASCII."""
    return encoding.lower().replace("-", "_") in _WIDE
