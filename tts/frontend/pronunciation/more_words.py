"""Words that the lexicon has not, or that it would spell; in the alphabet of misaki."""

from __future__ import annotations

MORE_WORDS = {
    "CAPTCHA": "kˈæpʧə",
    "CRUD": "kɹˈʌd",
    "DevOps": "dˈɛvˌɑps",
    "GIF": "ɡˈɪf",
    "GUI": "ɡˈui",
    "GitHub": "ɡˈɪthˌʌb",
    "JPEG": "ʤˈApˌɛɡ",
    "JSON": "ʤˈAsᵊn",
    "Kubernetes": "kˌubəɹnˈɛtiz",
    "LaTeX": "lˈAtˌɛk",
    "Linux": "lˈɪnəks",
    "Miz": "mɪz",
    "PhDs": "pˌiˌAʧdˈiz",
    "PyTorch": "pˈItˌɔɹʧ",
    "SQL": "sˈikwəl",
    "SaaS": "sˈæs",
    "Ubuntu": "ʊbˈʊntu",
    "Unicode": "jˈunɪkˌOd",
    "YAML": "jˈæməl",
    "etcetera": "ɛtsˈɛɾəɹə",
    "localhost": "lˈOkəlhˌOst",
}
