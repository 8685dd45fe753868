"""Makes the phonemes of `data/pronunciations.tsv` with the package hibari-tts.

python tests/tts/frontend/make_pronunciations.py
"""

from __future__ import annotations

from pathlib import Path

from hibari.g2p import G2P

TABLE = Path(__file__).parent / "data" / "pronunciations.tsv"


def main() -> None:
    convert = G2P()
    sentences = [line.partition("\t")[0] for line in TABLE.read_text(encoding="utf-8").splitlines()]
    TABLE.write_text("".join(f"{sentence}\t{convert(sentence)}\n" for sentence in sentences), encoding="utf-8")


if __name__ == "__main__":
    main()
