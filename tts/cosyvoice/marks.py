"""The tokens that CosyVoice adds to Qwen's, in the order of their numbers: sounds, emphasis, phonemes, pinyin.

Their order decides which row of the embedding each one has, as upstream's `cosyvoice/tokenizer/tokenizer.py` does.
"""

from __future__ import annotations


def _arpabet() -> list[str]:
    """Phonemes of ARPAbet in alphabetical order, vowels also with each stress."""
    vowels = set("AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split())
    phonemes = (
        "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH".split()
    )
    return [phoneme + stress for phoneme in phonemes for stress in (("", *"012") if phoneme in vowels else ("",))]


_SOUNDS = (
    "<|im_start|> <|im_end|> <|endofprompt|> [breath] <strong> </strong> [noise] [laughter] [cough] [clucking] "
    "[accent] [quick_breath] <laughter> </laughter> [hissing] [sigh] [vocalized-noise] [lipsmack] [mn]"
).split()
_PINYIN = (
    "a ai an ang ao b c ch d e ei en eng f g h i ian in ing iu ià iàn iàng iào iá ián iáng iáo iè ié iòng "
    "ióng iù iú iā iān iāng iāo iē iě iōng iū iǎ iǎn iǎng iǎo iǒng iǔ j k l m n o ong ou p q r s sh t u uang "
    "ue un uo uà uài uàn uàng uá uái uán uáng uè ué uì uí uò uó uā uāi uān uāng uē uě uī uō uǎ uǎi uǎn uǎng "
    "uǐ uǒ vè w x y z zh à ài àn àng ào á ái án áng áo è èi èn èng èr é éi én éng ér ì ìn ìng í ín íng ò òng "
    "òu ó óng óu ù ùn ú ún ā āi ān āng āo ē ēi ēn ēng ě ěi ěn ěng ěr ī īn īng ō ōng ōu ū ūn ǎ ǎi ǎn ǎng ǎo ǐ "
    "ǐn ǐng ǒ ǒng ǒu ǔ ǔn ǘ ǚ ǜ"
).split()
_FIRST = "<|endoftext|>"
MARKS = {
    2: [_FIRST, *_SOUNDS],
    3: [_FIRST, *_SOUNDS, "<|endofsystem|>", *(f"[{one}]" for one in [*_arpabet(), *_PINYIN])],
}
