"""jaxgkd: small graph students learn what large teachers know.

``from jaxgkd import losses`` is a good place to start.
"""

__version__ = "0.1.0"
