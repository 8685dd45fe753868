"""``python -m loquent.speech`` is the command ``loquent``."""

import sys

from loquent.speech.commands.cli import main

sys.exit(main())
