"""The language model's room: backbone, slots, losses, training, fusion, scoring."""

import warnings

# transformers' own deprecation, met by peft on its behalf; nothing a user could mend.
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
