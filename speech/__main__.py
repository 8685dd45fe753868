"""``python -m loquent.speech`` is the command ``loquent``."""

import sys

from loquent.speech.cli import main

sys.exit(main())
