//! A parameter's value, of the types that Spark's parameters have.

use std::fmt;

use super::ParameterKind;

/// A parameter's value.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// `Int` and `Long`.
    Int(i64),
    /// `Float` and `Double`.
    Double(f64),
    /// `Boolean`.
    Boolean(bool),
    /// `String`.
    Text(String),
    /// `Array[Int]`.
    Ints(Vec<i64>),
    /// `Array[Double]`.
    Doubles(Vec<f64>),
    /// `Array[String]`.
    Texts(Vec<String>),
}

impl Value {
    /// The whole number.
    pub fn as_int(&self) -> Option<i64> {
        if let Self::Int(value) = self { Some(*value) } else { None }
    }

    /// The number.
    pub fn as_double(&self) -> Option<f64> {
        if let Self::Double(value) = self { Some(*value) } else { None }
    }

    /// The truth value.
    pub fn as_boolean(&self) -> Option<bool> {
        if let Self::Boolean(value) = self { Some(*value) } else { None }
    }

    /// The text.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(value) = self { Some(value) } else { None }
    }

    /// The whole numbers.
    pub fn as_ints(&self) -> Option<&[i64]> {
        if let Self::Ints(value) = self { Some(value) } else { None }
    }

    /// The numbers.
    pub fn as_doubles(&self) -> Option<&[f64]> {
        if let Self::Doubles(value) = self { Some(value) } else { None }
    }

    /// The texts.
    pub fn as_texts(&self) -> Option<&[String]> {
        if let Self::Texts(value) = self { Some(value) } else { None }
    }

    /// The value that JSON has for a parameter of this kind.
    pub(crate) fn from_json(kind: ParameterKind, json: &serde_json::Value) -> Option<Self> {
        use serde_json::Value as Json;
        fn list<T>(json: &Json, one: impl Fn(&Json) -> Option<T>) -> Option<Vec<T>> {
            json.as_array()?.iter().map(one).collect()
        }
        Some(match kind {
            ParameterKind::Int { .. } => Self::Int(json.as_i64()?),
            ParameterKind::Double { .. } => Self::Double(json.as_f64()?),
            ParameterKind::Boolean => Self::Boolean(json.as_bool()?),
            ParameterKind::Text => Self::Text(json.as_str()?.to_owned()),
            ParameterKind::TokenIds => Self::Ints(list(json, Json::as_i64)?),
            ParameterKind::Channels => Self::Doubles(list(json, Json::as_f64)?),
            ParameterKind::Columns => Self::Texts(list(json, |j| j.as_str().map(str::to_owned))?),
        })
    }

    /// Whole numbers where the parameter has others, and one column's name for a list of them.
    pub(crate) fn widened(self, kind: ParameterKind) -> Self {
        match (self, kind) {
            (Self::Int(value), ParameterKind::Double { .. }) => Self::Double(value as f64),
            (Self::Ints(values), ParameterKind::Channels) => {
                Self::Doubles(values.into_iter().map(|v| v as f64).collect())
            }
            (Self::Text(name), ParameterKind::Columns) => Self::Texts(vec![name]),
            (value, _) => value,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => value.fmt(f),
            Self::Double(value) => value.fmt(f),
            Self::Boolean(value) => value.fmt(f),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::Ints(values) => write!(f, "{values:?}"),
            Self::Doubles(values) => write!(f, "{values:?}"),
            Self::Texts(values) => write!(f, "{values:?}"),
        }
    }
}

macro_rules! from {
    ($($from:ty => $variant:ident, $convert:expr;)*) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                let convert: fn($from) -> _ = $convert;
                Self::$variant(convert(value))
            }
        }
    )*};
}

from! {
    i32 => Int, i64::from;
    i64 => Int, |v| v;
    f32 => Double, f64::from;
    f64 => Double, |v| v;
    bool => Boolean, |v| v;
    &str => Text, str::to_owned;
    String => Text, |v| v;
    Vec<i32> => Ints, |v| v.into_iter().map(i64::from).collect();
    &[i32] => Ints, |v| v.iter().copied().map(i64::from).collect();
    Vec<f64> => Doubles, |v| v;
    &[f64] => Doubles, <[f64]>::to_vec;
    Vec<String> => Texts, |v| v;
    &[&str] => Texts, |v| v.iter().map(|s| (*s).to_owned()).collect();
}
