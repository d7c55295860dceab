from qilu_common.interpreter import import_lean

import_lean("structlog")
