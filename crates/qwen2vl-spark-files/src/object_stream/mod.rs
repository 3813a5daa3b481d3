//! Java object streams (`java.io.ObjectOutputStream`, protocol version 5) as a tree of values.
//!
//! Knows the protocol and no classes, except the few of Java and Scala that [`Value`]'s helpers look into. An object is
//! its class descriptor and its fields; what a class's `writeObject` wrote on top is parsed and dropped. Follows the
//! Java Object Serialization Specification, chapter 6, and `ObjectInputStream` of JDK 17 where that is stricter.
//!
//! Not read, and refused by name: dynamic proxies, exceptions in the stream, externalizable classes of protocol 1 (their
//! data have no end mark), cyclic objects, and strings that are no text (unpaired surrogates).
//!
//! Hostile input: nothing is allocated from a length alone; values are counted; and the tree is never higher than
//! [`Limits::max_depth`], references included, so that walking it (and dropping it) needs no deep stack. Objects that
//! the stream shares are shared here ([`Arc`](std::sync::Arc)), so a walk of the tree can be exponentially longer than
//! the stream: `Debug` stops after a fixed number of values, and there is no `PartialEq`.

mod class;
mod cursor;
mod descriptors;
mod handles;
mod interpret;
mod limits;
mod modified_utf8;
mod parser;
mod show;
mod tag;
mod value;

pub use class::{ClassDescriptor, FieldDescriptor, FieldType};
pub use limits::Limits;
pub use parser::{Parser, parse};
pub use value::{Array, Elements, EnumConstant, Object, Value};
