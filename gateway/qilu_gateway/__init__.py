from qilu_contract.interpreter import import_lean

import_lean("structlog", "httpx2")
