"""Makes `data/pronunciations.tsv` with the package hibari-tts: python tests/tts/frontend/make_pronunciations.py"""

from __future__ import annotations

from pathlib import Path

from hibari.g2p import G2P

DATA = Path(__file__).parent / "data"


def main() -> None:
    convert = G2P()
    sentences = (DATA / "sentences.txt").read_text(encoding="utf-8").splitlines()
    lines = [f"{sentence}\t{convert(sentence)}\n" for sentence in sentences]
    (DATA / "pronunciations.tsv").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
