"""The tests of the Python client, against a real lotlogd. Run by ``cargo test --test python`` and by ``python3 -m unittest``."""
