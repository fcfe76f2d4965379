"""The screens of tui.py and what they are made of. A screen knows the app (self.app) and what is shared, but
no other screen; nothing here imports tui.py."""
