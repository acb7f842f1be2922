#!/usr/bin/env python3
"""Breaks the deployment of compose.yaml under load, and tells whether it kept what is promised; see docs/deployment-drills.md."""

import sys

from drills.main import main

if __name__ == "__main__":
    sys.exit(main())
