//! The values of a stream.

use std::sync::Arc;

use super::class::{ClassDescriptor, EXTERNALIZABLE};

/// A value of a Java object stream. Cloning is cheap: what is large is shared.
#[derive(Clone)]
#[non_exhaustive]
pub enum Value {
    /// `null`
    Null,
    /// A `boolean`.
    Bool(bool),
    /// A `byte`.
    Byte(i8),
    /// A `char`: a UTF-16 code unit, which may be half of a character.
    Char(u16),
    /// A `short`.
    Short(i16),
    /// An `int`; a `java.lang.Integer` is an [`Object`], see [`Value::as_int`].
    Int(i32),
    /// A `long`.
    Long(i64),
    /// A `float`.
    Float(f32),
    /// A `double`.
    Double(f64),
    /// A `java.lang.String`.
    String(Arc<str>),
    /// An array.
    Array(Arc<Array>),
    /// An object of any other class.
    Object(Arc<Object>),
    /// A constant of an enum class.
    Enum(Arc<EnumConstant>),
    /// A `java.lang.Class`: the class itself as a value.
    Class(Arc<ClassDescriptor>),
    /// A `java.io.ObjectStreamClass`: a class descriptor that was written as a value.
    Descriptor(Arc<ClassDescriptor>),
}

/// An array with its class.
#[derive(Clone)]
pub struct Array {
    pub(super) class: Arc<ClassDescriptor>,
    pub(super) elements: Elements,
    pub(super) offset: u64,
}

/// An array's elements: numbers packed, anything else as values.
#[derive(Clone)]
#[non_exhaustive]
pub enum Elements {
    /// `boolean[]`
    Bools(Vec<bool>),
    /// `byte[]`
    Bytes(Vec<i8>),
    /// `char[]`
    Chars(Vec<u16>),
    /// `short[]`
    Shorts(Vec<i16>),
    /// `int[]`
    Ints(Vec<i32>),
    /// `long[]`
    Longs(Vec<i64>),
    /// `float[]`
    Floats(Vec<f32>),
    /// `double[]`
    Doubles(Vec<f64>),
    /// Objects, strings, arrays, nulls.
    Values(Vec<Value>),
}

impl Array {
    /// The array's class, as `[I`.
    pub fn class(&self) -> &ClassDescriptor {
        &self.class
    }

    /// All elements.
    pub fn elements(&self) -> &Elements {
        &self.elements
    }

    /// The elements of an `int[]`.
    pub fn as_ints(&self) -> Option<&[i32]> {
        match &self.elements {
            Elements::Ints(ints) => Some(ints),
            _ => None,
        }
    }

    /// The elements of an array of objects.
    pub fn as_values(&self) -> Option<&[Value]> {
        match &self.elements {
            Elements::Values(values) => Some(values),
            _ => None,
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match &self.elements {
            Elements::Bools(v) => v.len(),
            Elements::Bytes(v) => v.len(),
            Elements::Chars(v) => v.len(),
            Elements::Shorts(v) => v.len(),
            Elements::Ints(v) => v.len(),
            Elements::Longs(v) => v.len(),
            Elements::Floats(v) => v.len(),
            Elements::Doubles(v) => v.len(),
            Elements::Values(v) => v.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One element, whatever the array's type.
    pub fn get(&self, index: usize) -> Option<Value> {
        match &self.elements {
            Elements::Bools(v) => v.get(index).copied().map(Value::Bool),
            Elements::Bytes(v) => v.get(index).copied().map(Value::Byte),
            Elements::Chars(v) => v.get(index).copied().map(Value::Char),
            Elements::Shorts(v) => v.get(index).copied().map(Value::Short),
            Elements::Ints(v) => v.get(index).copied().map(Value::Int),
            Elements::Longs(v) => v.get(index).copied().map(Value::Long),
            Elements::Floats(v) => v.get(index).copied().map(Value::Float),
            Elements::Doubles(v) => v.get(index).copied().map(Value::Double),
            Elements::Values(v) => v.get(index).cloned(),
        }
    }

    /// Where the array starts in the stream.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// An object: its class and the values of its fields.
#[derive(Clone)]
pub struct Object {
    pub(super) class: Arc<ClassDescriptor>,
    /// The highest superclass's first, as in the stream; none if the class is externalizable.
    pub(super) values: Box<[Value]>,
    pub(super) offset: u64,
}

impl Object {
    /// The object's class.
    pub fn class(&self) -> &ClassDescriptor {
        &self.class
    }

    /// The name of the object's class.
    pub fn class_name(&self) -> &str {
        &self.class.name
    }

    /// The field of that name; where a class and its superclass have the same name, the class's.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.fields().find(|(field, _)| *field == name).map(|(_, value)| value)
    }

    /// Names and values of the fields, the class's own first, then its superclass's, and so on.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        // An externalizable class has descriptors of fields, but its data are not fields.
        let class = (!self.class.has(EXTERNALIZABLE)).then_some(&*self.class);
        let mut end = self.values.len();
        class.into_iter().flat_map(ClassDescriptor::chain).flat_map(move |class| {
            let start = end.saturating_sub(class.fields.len());
            let values = &self.values[start..end];
            end = start;
            class.fields.iter().map(|field| &*field.name).zip(values)
        })
    }

    /// Where the object starts in the stream.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// A constant of an enum class.
#[derive(Clone)]
pub struct EnumConstant {
    pub(super) class: Arc<ClassDescriptor>,
    pub(super) name: Arc<str>,
    pub(super) offset: u64,
}

impl EnumConstant {
    /// The enum's class.
    pub fn class(&self) -> &ClassDescriptor {
        &self.class
    }

    /// The constant's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the constant starts in the stream.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}
