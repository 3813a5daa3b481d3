//! Class descriptors.

use std::sync::Arc;

/// `SC_WRITE_METHOD`: the class wrote data of its own after the fields.
pub(super) const WRITE_METHOD: u8 = 0x01;
/// `SC_SERIALIZABLE`.
pub(super) const SERIALIZABLE: u8 = 0x02;
/// `SC_EXTERNALIZABLE`.
pub(super) const EXTERNALIZABLE: u8 = 0x04;
/// `SC_BLOCK_DATA`: an externalizable class wrote its data in blocks, with an end mark.
pub(super) const BLOCK_DATA: u8 = 0x08;
/// `SC_ENUM`.
pub(super) const ENUM: u8 = 0x10;

/// What the stream says about a class.
#[derive(Debug, PartialEq, Eq)]
pub struct ClassDescriptor {
    pub(super) name: Arc<str>,
    pub(super) serial_version_uid: u64,
    pub(super) flags: u8,
    pub(super) fields: Vec<FieldDescriptor>,
    pub(super) superclass: Option<Arc<ClassDescriptor>>,
    /// 1 plus the superclass's; bounded by the parser.
    pub(super) height: u32,
}

impl ClassDescriptor {
    /// The name as Java gives it: `scala.Tuple2`, `[I`, `[Ljava.lang.String;`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version of the class; it says nothing that a reader of trees needs.
    pub fn serial_version_uid(&self) -> u64 {
        self.serial_version_uid
    }

    /// The flags `SC_…` of the stream.
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// The class's own fields, without its superclasses', in the order of the stream.
    pub fn fields(&self) -> &[FieldDescriptor] {
        &self.fields
    }

    /// The nearest superclass that is serializable.
    pub fn superclass(&self) -> Option<&ClassDescriptor> {
        self.superclass.as_deref()
    }

    /// The class, its superclass, and so on upwards.
    pub fn chain(&self) -> impl Iterator<Item = &ClassDescriptor> {
        std::iter::successors(Some(self), |class| class.superclass())
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A field of a class.
#[derive(Debug, PartialEq, Eq)]
pub struct FieldDescriptor {
    pub(super) name: Box<str>,
    pub(super) kind: FieldType,
    pub(super) class_name: Option<Arc<str>>,
}

impl FieldDescriptor {
    /// The field's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What kind of value it has.
    pub fn kind(&self) -> FieldType {
        self.kind
    }

    /// The declared class of a field that is an object or array, as `Lscala/Option;` or `[I`.
    pub fn class_name(&self) -> Option<&str> {
        self.class_name.as_deref()
    }
}

/// The type of a field or of an array's elements, by its letter in descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// `Z`
    Bool,
    /// `B`
    Byte,
    /// `C`, a UTF-16 code unit.
    Char,
    /// `S`
    Short,
    /// `I`
    Int,
    /// `J`
    Long,
    /// `F`
    Float,
    /// `D`
    Double,
    /// `L` and `[`: an object, array, string or null.
    Reference,
}

impl FieldType {
    pub(super) fn from_letter(letter: u8) -> Option<Self> {
        Some(match letter {
            b'Z' => Self::Bool,
            b'B' => Self::Byte,
            b'C' => Self::Char,
            b'S' => Self::Short,
            b'I' => Self::Int,
            b'J' => Self::Long,
            b'F' => Self::Float,
            b'D' => Self::Double,
            b'L' | b'[' => Self::Reference,
            _ => return None,
        })
    }

    /// Of the elements of the array class `name`; none if that is not an array's name.
    pub(super) fn of_elements(name: &str) -> Option<Self> {
        let element = name.strip_prefix('[')?;
        let kind = Self::from_letter(*element.as_bytes().first()?)?;
        let innermost = match element.trim_start_matches('[').as_bytes() {
            [b'L', class @ .., b';'] => !class.is_empty(),
            [letter] => Self::from_letter(*letter).is_some_and(|kind| kind != Self::Reference),
            _ => false,
        };
        innermost.then_some(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_types_of_array_classes() {
        let cases = [
            ("[I", Some(FieldType::Int)),
            ("[Z", Some(FieldType::Bool)),
            ("[[I", Some(FieldType::Reference)),
            ("[Lscala.Tuple2;", Some(FieldType::Reference)),
            ("[[[Lscala.Tuple2;", Some(FieldType::Reference)),
            ("", None),
            ("[", None),
            ("[[", None),
            ("[L", None),
            ("[L;", None),
            ("[Lscala.Tuple2", None),
            ("[II", None),
            ("[Q", None),
            ("[é", None),
            ("I", None),
            ("scala.Tuple2", None),
        ];
        for (name, want) in cases {
            assert_eq!(FieldType::of_elements(name), want, "{name}");
        }
    }
}
