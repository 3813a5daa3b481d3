//! What no answer can have, and what is not understood.
