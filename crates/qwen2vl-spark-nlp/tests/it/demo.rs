//! The demo model behind the compatibility types, and rows to ask it about.
