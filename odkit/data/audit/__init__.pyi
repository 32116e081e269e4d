from .inspection import audit as audit
from .inspection import require_trainable as require_trainable
from .next_steps import next_steps as next_steps
from .repair import on_file_pixels as on_file_pixels
from .repair import repaired as repaired
from .report import Audit as Audit
from .report import Finding as Finding
