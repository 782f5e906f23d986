"""Does a response stay in the language it was asked in?

A response stays when every letter belongs to the language's script and, for the languages that share the Latin
script, the identified language is the expected one. Strict on purpose: what counts is all tokens in the expected
language (Online Merging Optimizers, appendix B). Digits, punctuation and program text in backquotes are ignored.
"""

import re
import unicodedata

from py3langid.langid import MODEL_FILE, LanguageIdentifier

_SCRIPTS: dict[str, tuple[str, ...]] = {
    "zh": ("CJK",),
    "ja": ("CJK", "HIRAGANA", "KATAKANA"),
    "ko": ("HANGUL",),
    "ru": ("CYRILLIC",),
    "uk": ("CYRILLIC",),
    "bg": ("CYRILLIC",),
    "ar": ("ARABIC",),
    "fa": ("ARABIC",),
    "he": ("HEBREW",),
    "th": ("THAI",),
    "el": ("GREEK",),
    "hi": ("DEVANAGARI",),
    "bn": ("BENGALI",),
}
_LATIN = ("LATIN",)
# Below this many letters a language identifier guesses.
_ENOUGH_LETTERS = 20


class LanguageCheck:
    """Checks responses against the language they were asked in.

    Args:
        languages: The languages of the evaluation; identification chooses among those of the Latin script.
    """

    def __init__(self, languages: tuple[str, ...]) -> None:
        self._latin = sorted(lang for lang in languages if lang not in _SCRIPTS)
        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
        known = set(self._identifier.labels)
        if len(self._latin) > 1 and set(self._latin) <= known:
            self._identifier.set_languages(self._latin)

    def is_in_language(self, response: str, language: str) -> bool:
        """Whether every letter of `response` is of `language`; one without letters is, one without anything is not."""
        if not response.strip():
            return False
        text = re.sub(r"`[^`]*`", " ", response)
        letters = [letter for letter in text if letter.isalpha()]
        scripts = _SCRIPTS.get(language, _LATIN)
        if any(unicodedata.name(letter, "").split(" ")[0] not in scripts for letter in letters):
            return False
        if language in _SCRIPTS or len(letters) < _ENOUGH_LETTERS or len(self._latin) < 2:
            return True
        return self._identifier.classify(text)[0] == language
