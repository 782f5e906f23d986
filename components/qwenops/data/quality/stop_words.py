"""Stop words by language: a text of a language has some of its commonest words, a list of products has not.

English is Gopher's own list; the others are the commonest function words of each language in the same number.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qwenops.data.characters import ALPHABETIC, COMBINING
from qwenops.data.quality.batch import Batch
from qwenops.data.spans import Integers, Mask

STOP_WORDS = {
    "en": ("the", "be", "to", "of", "and", "that", "have", "with"),
    "de": ("der", "die", "und", "in", "den", "von", "zu", "das", "mit", "ist"),
    "fr": ("le", "la", "de", "et", "les", "des", "en", "un", "une", "est", "que"),
    "es": ("el", "la", "de", "que", "y", "en", "los", "se", "del", "las", "un", "por"),
    "pt": ("o", "a", "de", "que", "e", "do", "da", "em", "um", "para", "os"),
    "it": ("il", "di", "che", "e", "la", "in", "un", "per", "del", "non", "si"),
    "nl": ("de", "het", "een", "van", "en", "in", "is", "dat", "op", "te"),
    "ru": ("и", "в", "не", "на", "что", "с", "по", "для", "из", "как"),
    "cs": ("a", "se", "v", "na", "je", "že", "s", "z", "do", "o", "pro"),
    "pl": ("i", "w", "na", "z", "się", "do", "nie", "jest", "to", "że", "o"),
    "tr": ("ve", "bir", "bu", "için", "ile", "de", "da", "olarak", "daha", "en"),
    "ar": ("في", "من", "على", "إلى", "أن", "عن", "التي", "هذا", "مع", "ما"),
    "fa": ("و", "در", "به", "از", "که", "این", "را", "با", "است", "برای"),
    "he": ("של", "את", "על", "לא", "הוא", "זה", "עם", "כי", "גם", "או"),
    "id": ("yang", "dan", "di", "untuk", "dengan", "dari", "ini", "pada", "tidak", "itu"),
    "ms": ("yang", "dan", "di", "untuk", "dengan", "dari", "ini", "pada", "tidak", "itu"),
    "vi": ("và", "của", "là", "có", "cho", "các", "được", "trong", "một", "không"),
    "hi": ("के", "में", "की", "है", "और", "से", "का", "को", "पर", "यह"),
    "ur": ("کے", "میں", "کی", "ہے", "اور", "سے", "کا", "کو", "پر", "یہ"),
    "bn": ("এবং", "এই", "করে", "থেকে", "এর", "একটি", "জন্য", "না", "হয়", "ও"),
}

# Where no blanks stand between words: characters and endings that running text cannot do without, old and new.
UNSPACED_STOP_WORDS = {
    "zh": tuple("的一是不了在人有我他她这這个個们們中来來上大为為和国國地到以"
        "说說时時要就出会會也你对對生能而子那得于於着著下自之年过過其者曰所無无与與都"),
    "ja": tuple("のにはをがとでもへ"),
    "th": ("ที่", "การ", "และ", "ใน", "ของ", "เป็น", "มี", "ได้", "ไม่", "ว่า", "จะ", "ให้", "นี้", "กับ", "จาก"),
    "lo": ("ແລະ", "ທີ່", "ຂອງ", "ໃນ", "ເປັນ", "ມີ", "ການ", "ບໍ່", "ໄດ້", "ຈະ", "ຄວາມ", "ໃຫ້"),
    "my": ("သည်", "၏", "များ", "နှင့်", "ကို", "တွင်", "မှ", "ဖြစ်", "ရှိ", "သော", "ခြင်း", "ရန်"),
    "km": ("និង", "នៃ", "ក្នុង", "ដែល", "ជា", "មាន", "ការ", "ដោយ", "ឬ", "នេះ", "របស់", "ត្រូវ"),
}  # fmt: skip


def stop_share(batch: Batch, languages: Sequence[str]) -> NDArray[np.float64]:
    """Share of the letters of each text that are in its language's `UNSPACED_STOP_WORDS`: float64 [N].

    1 where the language has no such list.
    """
    share = np.ones(batch.count)
    letters = np.maximum(batch.count_in((batch.flags & (ALPHABETIC | COMBINING)) != 0), 1)
    for language in sorted(UNSPACED_STOP_WORDS.keys() & set(languages)):
        covered = np.zeros(len(batch.codes), dtype=bool)
        for word in UNSPACED_STOP_WORDS[language]:
            codes = [ord(letter) for letter in word]
            ends = len(batch.codes) - len(codes) + 1
            starts = np.logical_and.reduce([batch.codes[n : ends + n] == code for n, code in enumerate(codes)])
            for n in range(len(codes)):
                covered[n : ends + n] |= starts
        here = np.array([other == language for other in languages], dtype=bool)
        share = np.where(here, batch.count_in(covered) / letters, share)
    return share


def distinct_stop_words(batch: Batch, languages: Sequence[str], wanted: tuple[str, ...]) -> tuple[Integers, Mask]:
    """How many different stop words of its language each text has, and of which texts that can be asked.

    Args:
        batch: The texts.
        languages: Language of each.
        wanted: Languages to ask; one without a list is not asked.

    Returns:
        int64 [N] and bool [N].
    """
    known = STOP_WORDS.keys() | UNSPACED_STOP_WORDS.keys()
    asked = np.array([language in wanted and language in known for language in languages], dtype=bool)
    found = np.zeros(batch.count, dtype=np.int64)
    if not asked.any():
        return found, asked
    hashes = batch.folded_hashes(batch.words)
    for language in sorted(STOP_WORDS.keys() & {name for name, flag in zip(languages, asked, strict=True) if flag}):
        here = np.array([other == language for other in languages], dtype=bool)
        keys = _keys(STOP_WORDS[language])
        places = np.searchsorted(keys, hashes)
        hits = np.flatnonzero((keys[np.minimum(places, len(keys) - 1)] == hashes) & here[batch.words.document])
        pairs = np.unique(batch.words.document[hits] * len(keys) + places[hits])
        found += np.bincount(pairs // len(keys), minlength=batch.count)
    return found, asked


def _keys(words: tuple[str, ...]) -> np.ndarray:
    listed = Batch(words)
    return np.sort(listed.folded_hashes(listed.words))
