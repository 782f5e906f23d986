"""Language identification: script first for Chinese, Japanese and Korean, py3langid for the rest.

The script is a cross-check that a trained model lacks: short Chinese or Japanese text with Latin product names in it
is often taken for another language, while kana and hangul leave no doubt.
"""

import re
from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

# Evidence saturates: more text only pushes every score to 1, and time grows with it.
_SAMPLE_CHARACTERS = 1500
_KANA = re.compile("[\u3040-\u30ff]")
_HANGUL = re.compile("[\uac00-\ud7af]")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_LETTER = re.compile(r"[^\W\d_]")
_KANA_SHARE, _HANGUL_SHARE, _HAN_SHARE = 0.05, 0.2, 0.2


def identify_language(text: str) -> tuple[str, float]:
    """Language (ISO 639) and a score in [0, 1]; ("", 0.0) for a text without letters."""
    sample = _middle(text)
    letters = len(_LETTER.findall(sample))
    if not letters:
        return "", 0.0
    kana, hangul, han = (len(pattern.findall(sample)) / letters for pattern in (_KANA, _HANGUL, _HAN))
    # One Han character or syllable stands for several letters, so modest shares are most of the text.
    if kana >= _KANA_SHARE and kana + han >= _HAN_SHARE:
        return "ja", min(1.0, 0.5 + kana + han)
    if hangul >= _HANGUL_SHARE:
        return "ko", min(1.0, 0.5 + hangul)
    if han >= _HAN_SHARE:
        return "zh", min(1.0, 0.5 + han)
    language, score = _identifier().classify(sample)
    return str(language), float(score)


def _middle(text: str) -> str:
    """A sample from the middle, where titles, menus and licence headers are not."""
    start = max((len(text) - _SAMPLE_CHARACTERS) // 2, 0)
    return text[start : start + _SAMPLE_CHARACTERS]


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
