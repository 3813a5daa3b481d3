//! Regexes, choices and grammars.
