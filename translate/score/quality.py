"""Quality: BLEU and chrF of the whole corpus, as sacrebleu computes them."""

from __future__ import annotations

from collections.abc import Sequence

from loquent.translate.score.instance import Instance


def quality(instances: Sequence[Instance], tokenize: str = "13a") -> dict[str, float]:
    """BLEU (arXiv 1804.08771) and chrF2, in percent; translations that are empty count too.

    Args:
        instances: all with a reference.
        tokenize: name of sacrebleu's tokeniser for BLEU: "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", …

    Raises:
        ImportError: sacrebleu is not installed.
        ValueError: an instance has no reference, or there is no such tokeniser.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise ImportError(
            "BLEU and chrF need the package sacrebleu: in a checkout of loquent, "
            'pip install ".[translate-score]"; `latency` does without'
        ) from error
    if tokenize not in BLEU.TOKENIZERS:
        raise ValueError(f"tokenize: expected one of {', '.join(sorted(BLEU.TOKENIZERS))}, got {tokenize!r}")
    predictions, references = [], []
    for at, instance in enumerate(instances):
        if instance.reference is None:
            raise ValueError(f"instance {at} has no reference, which BLEU and chrF need")
        predictions.append(instance.prediction)
        references.append(instance.reference)
    return {
        "BLEU": float(BLEU(tokenize=tokenize).corpus_score(predictions, [references]).score),
        "chrF": float(CHRF().corpus_score(predictions, [references]).score),
    }
