"""`python -m qilu`"""

from qilu.cli import main

if __name__ == "__main__":
    main()
