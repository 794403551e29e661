"""A package: marginaleffects 0.6 installs one of this name, which is found before a mere folder."""
