//! Object streams: rules that no JDK would break, limits, and trees that shared objects make large.

use std::fmt::Write as _;

use qwen2vl_spark_files::object_stream::{Limits, Parser, Value, parse};
use qwen2vl_spark_files::{Error, Reason};

use crate::tree::tree;

const NULL: u8 = 0x70;
const END: u8 = 0x78;

/// A stream of these parts after magic bytes and version.
fn stream(parts: &[&[u8]]) -> Vec<u8> {
    [[0xac, 0xed, 0, 5].as_slice(), &parts.concat()].concat()
}

fn utf(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn reference(handle: u32) -> Vec<u8> {
    [&[0x71], (0x7e_0000 + handle).to_be_bytes().as_slice()].concat()
}

fn string(text: &str) -> Vec<u8> {
    [&[0x74], utf(text).as_slice()].concat()
}

/// A class descriptor up to its fields.
fn class_start(name: &str, flags: u8, n_fields: u16) -> Vec<u8> {
    [&[0x72], utf(name).as_slice(), &[0; 8], &[flags], &n_fields.to_be_bytes()].concat()
}

fn class(name: &str, flags: u8, fields: &[(char, &str)], superclass: &[u8]) -> Vec<u8> {
    let mut bytes = class_start(name, flags, fields.len() as u16);
    for (letter, name) in fields {
        bytes.push(*letter as u8);
        bytes.extend(utf(name));
        if matches!(letter, 'L' | '[') {
            bytes.extend(string("Ljava/lang/Object;"));
        }
    }
    bytes.push(END);
    bytes.extend(superclass);
    bytes
}

fn plain_class(name: &str, fields: &[(char, &str)]) -> Vec<u8> {
    class(name, 2, fields, &[NULL])
}

fn object(class: &[u8], data: &[u8]) -> Vec<u8> {
    [&[0x73], class, data].concat()
}

fn array(class: &[u8], length: i32, data: &[u8]) -> Vec<u8> {
    [&[0x75], class, &length.to_be_bytes(), data].concat()
}

fn objects_class() -> Vec<u8> {
    plain_class("[Ljava.lang.Object;", &[])
}

fn check(cases: &[(&str, Vec<u8>, &str)]) {
    let mut problems = Vec::new();
    for (name, bytes, want) in cases {
        let got = match parse(bytes) {
            Ok(value) => tree(&value),
            Err(e) => e.to_string(),
        };
        if got != *want {
            problems.push(format!("{name}:\n  got  {got}\n  want {want}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn accepted_by_the_letter_of_the_specification() {
    check(&[
        ("long string", stream(&[&[0x7c, 0, 0, 0, 0, 0, 0, 0, 2], b"hi"]), "\"hi\""),
        ("U+0000 as one byte", stream(&[&[0x74, 0, 1, 0]]), "\"\\u0000\""),
        (
            "a boolean of any bits",
            stream(&[&object(&plain_class("C", &[('Z', "z")]), &[0x80])]),
            "C{z=Z true}",
        ),
        (
            "annotations of classes and objects, with handles",
            stream(&[&array(
                &objects_class(),
                2,
                &[
                    &[0x73],
                    class_start("C", 3, 0).as_slice(),
                    &[0x77, 2, 1, 2],
                    &string("in the class"), // handle 3
                    &[END, NULL],
                    &[0x7a, 0, 0, 0, 1, 9, 0x77, 0],
                    &string("in the object"), // handle 5
                    &[NULL, END],
                    &reference(5),
                ]
                .concat(),
            )]),
            "[Ljava.lang.Object;[C{}, \"in the object\"]",
        ),
        (
            "constant of an enum, twice",
            stream(&[&array(
                &objects_class(),
                3,
                &[
                    &[0x7e],
                    class("E", 0x12, &[], &class("java.lang.Enum", 0x12, &[], &[NULL])).as_slice(),
                    &string("A"), // class 2, superclass 3, constant 4, name 5
                    &reference(4),
                    &[0x7e],
                    &reference(2),
                    &reference(5),
                ]
                .concat(),
            )]),
            "[Ljava.lang.Object;[enum E::A, enum E::A, enum E::A]",
        ),
        (
            "class as an object, twice",
            stream(&[&array(
                &objects_class(),
                2,
                &[&[0x76], class("C", 0, &[], &[NULL]).as_slice(), &reference(3)].concat(),
            )]),
            "[Ljava.lang.Object;[class C, class C]",
        ),
        (
            "null where an externalizable superclass has fields",
            stream(&[&object(&class("C", 0x0c, &[], &plain_class("S", &[('I', "i")])), &[0x77, 1, 5, END])]),
            "C{}",
        ),
        (
            "type of a field given again",
            {
                let mut class = class_start("C", 2, 2);
                class.extend(
                    [b"L\x00\x01a".as_slice(), &string("LX;"), b"L\x00\x01b", &reference(1), &[END, NULL]]
                        .concat(),
                );
                stream(&[&object(&class, &[NULL, NULL])])
            },
            "C{a=null, b=null}",
        ),
    ]);
}

#[test]
fn refused_with_the_place() {
    let c = |fields: &[(char, &str)]| plain_class("C", fields);
    check(&[
        (
            "empty",
            vec![],
            "at byte 0: the data end within the magic bytes of a Java object stream: 2 bytes needed, 0 left; \
                           the file is truncated or damaged",
        ),
        (
            "magic",
            b"PK\x03\x04".to_vec(),
            "at byte 0: no Java object stream: it starts with [50, 4b] instead of [ac, ed]",
        ),
        (
            "version",
            vec![0xac, 0xed, 0, 6],
            "at byte 2: version 6 of the Java object stream is not supported; supported: 5",
        ),
        ("no tag", stream(&[&[0x42]]), "at byte 4: byte 0x42 where an object is expected"),
        ("tag above the last", stream(&[&[0x7f]]), "at byte 4: byte 0x7f where an object is expected"),
        ("end mark", stream(&[&[END]]), "at byte 4: TC_ENDBLOCKDATA where an object is expected"),
        (
            "exception",
            stream(&[&[0x7b]]),
            "at byte 4: an exception that ended the writing TC_EXCEPTION is not supported; \
                                           supported: streams that were written completely",
        ),
        (
            "proxy",
            stream(&[&[0x73, 0x7d]]),
            "at byte 5: a dynamic proxy class TC_PROXYCLASSDESC is not supported; \
                                             supported: ordinary classes",
        ),
        (
            "reset within",
            stream(&[&array(&objects_class(), 1, &[0x79])]),
            "at byte 44: TC_RESET where an object is expected",
        ),
        (
            "left over",
            stream(&[&[NULL, NULL, NULL]]),
            "at byte 5: 2 bytes are left after the object of the stream",
        ),
        (
            "unknown handle",
            stream(&[&reference(0)]),
            "at byte 5: reference to handle 0x7e0000, but only 0 handles from \
                                                      0x7e0000 are assigned",
        ),
        (
            "handle below the first",
            stream(&[&[0x71, 0, 0, 0, 1]]),
            "at byte 5: reference to handle 0x1, but only 0 handles \
                                                                    from 0x7e0000 are assigned",
        ),
        (
            "handle after a reset",
            stream(&[&[0x79], &reference(0)]),
            "at byte 6: reference to handle 0x7e0000, but only 0 \
                                                                     handles from 0x7e0000 are assigned",
        ),
        (
            "object in itself",
            stream(&[&object(&c(&[('L', "f")]), &reference(2))]),
            "at byte 48: reference to handle 0x7e0002, which is still being read: cyclic objects are not supported",
        ),
        (
            "class above itself",
            stream(&[&object(&class("C", 2, &[], &reference(0)), &[])]),
            "at byte 22: reference to handle 0x7e0000, which is still being read: cyclic objects are not supported",
        ),
        (
            "class of an object is null",
            stream(&[&object(&[NULL], &[])]),
            "at byte 5: null where a class descriptor is expected",
        ),
        (
            "class of an object is a text",
            stream(&[&array(&objects_class(), 2, &[string("x"), object(&reference(2), &[])].concat())]),
            "at byte 49: the text \"x\" where a class descriptor is expected",
        ),
        (
            "class is an object",
            stream(&[&[0x73, 0x73]]),
            "at byte 5: TC_OBJECT where a class descriptor is expected",
        ),
        (
            "type of a field is a class",
            {
                let mut class = class_start("C", 2, 1);
                class.extend([b"L\x00\x01a".as_slice(), &[NULL]].concat());
                stream(&[&object(&class, &[])])
            },
            "at byte 24: TC_NULL where a string is expected",
        ),
        (
            "type of a field is no string",
            {
                let mut class = class_start("C", 2, 1);
                class.extend([b"L\x00\x01a".as_slice(), &reference(0)].concat());
                stream(&[&array(&objects_class(), 1, &object(&class, &[]))])
            },
            "at byte 64: the descriptor of class [Ljava.lang.Object; where a string is expected",
        ),
        (
            "letter of a field",
            stream(&[&object(&c(&[('Q', "f")]), &[])]),
            "at byte 20: the type of a field is 81; allowed is one of B C D F I J S Z L [",
        ),
        (
            "order of fields",
            stream(&[&object(&c(&[('L', "a"), ('I', "b")]), &[])]),
            "at byte 5: class C: it has a field of a number after one of an object",
        ),
        (
            "number of fields",
            stream(&[&object(&class_start("C", 2, 0x8000), &[])]),
            "at byte 5: class C: it has more fields than Java allows",
        ),
        (
            "flags",
            stream(&[&object(&class("C", 6, &[], &[NULL]), &[])]),
            "at byte 5: class C: it is serializable and externalizable at once",
        ),
        (
            "enum with fields",
            stream(&[&object(&class("C", 0x12, &[('I', "i")], &[NULL]), &[])]),
            "at byte 5: class C: it is an enum and has fields",
        ),
        (
            "object of an enum",
            stream(&[&object(&class("C", 0x12, &[], &[NULL]), &[])]),
            "at byte 4: class C: it is an enum, but was written as an object",
        ),
        (
            "constant of no enum",
            stream(&[&[0x7e], &c(&[]), &string("A")]),
            "at byte 4: class C: it is no enum, but a constant of it is there",
        ),
        (
            "name of a constant",
            stream(&[&[0x7e], &class("E", 0x12, &[], &[NULL]), &[NULL]]),
            "at byte 22: TC_NULL where a string is expected",
        ),
        (
            "not serializable",
            stream(&[&object(&class("C", 0, &[], &[NULL]), &[])]),
            "at byte 4: class C: it is not serializable, but an object of it is there",
        ),
        (
            "superclass not serializable",
            stream(&[&object(&class("C", 2, &[], &class("S", 4, &[], &[NULL])), &[])]),
            "at byte 4: class S: it is not serializable, but an object of it is there",
        ),
        (
            "externalizable of protocol 1",
            stream(&[&object(&class("C", 4, &[], &[NULL]), &[])]),
            "at byte 4: the externalizable class C is not supported; supported: externalizable classes of protocol 2, whose \
          data have an end",
        ),
        (
            "array of no array class",
            stream(&[&array(&plain_class("I", &[]), 0, &[])]),
            "at byte 4: class I where the class of an array is expected",
        ),
        (
            "negative length",
            stream(&[&array(&plain_class("[I", &[]), -1, &[])]),
            "at byte 23: the length of an array is -1; allowed is 0 or more",
        ),
        (
            "longer than any",
            stream(&[&array(&plain_class("[I", &[]), i32::MAX, &[])]),
            "at byte 23: the length of an array: 2147483647 where the limit is 16777216; raise the limit if the file can be \
          trusted",
        ),
        (
            "numbers that are not there",
            stream(&[&array(&plain_class("[J", &[]), 1 << 24, &[0; 9])]),
            "at byte 27: the data end within the elements of an array: 134217728 bytes needed, 9 left; the file is truncated or \
          damaged",
        ),
        (
            "objects that are not there",
            stream(&[&array(&objects_class(), 1000, &[NULL; 9])]),
            "at byte 44: the data end within the elements of an array: 1000 bytes needed, 9 left; the file is truncated or damaged",
        ),
        (
            "long string that is not there",
            stream(&[&[0x7c, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], b"hi"]),
            "at byte 13: the data end within a string: 18446744073709551615 bytes needed, 2 left; the file is truncated or damaged",
        ),
        (
            "bad text",
            stream(&[&[0x74, 0, 4], b"ab\xc0a"]),
            "at byte 10: a string is not Java's modified UTF-8: a byte that cannot continue a character",
        ),
        (
            "bad name of a class",
            stream(&[&[0x73, 0x72, 0, 2, 0xf0, 0x90]]),
            "at byte 8: the name of a class is not Java's modified UTF-8: a byte that cannot start a character",
        ),
        (
            "negative block data",
            stream(&[&[0x73], &class_start("C", 2, 0), &[0x7a, 0xff, 0xff, 0xff, 0xff]]),
            "at byte 21: the length of block data is -1; allowed is 0 or more",
        ),
        (
            "block data that are not there",
            stream(&[&[0x73], &class_start("C", 2, 0), &[0x77, 9, 1]]),
            "at byte 22: the data end within block data: 9 bytes needed, 1 left; the file is truncated or damaged",
        ),
    ]);
}

#[test]
fn offsets_may_count_from_elsewhere() {
    let error = Parser::new(&stream(&[&[0x42]])).at_offset(1000).parse().unwrap_err();
    assert_eq!(error.offset, 1004);
    let value = Parser::new(&stream(&[&array(&objects_class(), 0, &[])])).at_offset(1000).parse().unwrap();
    assert_eq!(value.offset(), Some(1004));
    let error = Parser::new(&stream(&[&[0x42]])).at_offset(u64::MAX).parse().unwrap_err();
    assert_eq!(error.offset, u64::MAX);
}

/// Nested arrays as a stream: `depth` of them.
fn nested(depth: usize) -> Vec<u8> {
    let one = [[0x75].as_slice(), &reference(0), &1_i32.to_be_bytes()].concat();
    let first = array(&objects_class(), 1, &[]);
    stream(&[&first, &one.repeat(depth - 1), &[NULL]])
}

fn with_depth(bytes: &[u8], max_depth: u32) -> Result<Value, Error> {
    let mut limits = Limits::default();
    limits.max_depth = max_depth;
    Parser::new(bytes).with_limits(limits).parse()
}

#[test]
fn depth_has_a_limit_and_the_limit_a_limit() {
    assert!(parse(&nested(128)).is_ok());
    let error = parse(&nested(129)).unwrap_err();
    assert!(
        matches!(error.reason, Reason::Limit { what: "the depth of the stream", found: 129, limit: 128 }),
        "{error}"
    );
    assert!(with_depth(&nested(512), 512).is_ok());
    assert!(with_depth(&nested(600), 100_000).is_err());
    assert!(with_depth(&nested(1), 0).is_err());
    assert!(with_depth(&stream(&[&string("x")]), 0).is_ok());
}

#[test]
fn the_deepest_stream_needs_no_deep_stack() {
    // What a thread gets by default; also for annotations and superclasses, which are read by other functions.
    let annotations = stream(&[&[[0x73].as_slice(), &class_start("C", 2, 0)].concat().repeat(600)]);
    let superclasses = stream(&[&[0x73], &[class_start("C", 2, 0), vec![END]].concat().repeat(600)]);
    let fields = stream(&[&[
        &object(&plain_class("C", &[('L', "f")]), &[]),
        [[0x73].as_slice(), &reference(0)].concat().repeat(600).as_slice(),
    ]
    .concat()]);
    for bytes in [nested(600), annotations, superclasses, fields] {
        let thread = std::thread::Builder::new().stack_size(2 << 20);
        let result = thread.spawn(move || with_depth(&bytes, 512).map(drop)).unwrap().join().unwrap();
        let error = result.unwrap_err();
        assert!(matches!(error.reason, Reason::Limit { limit: 512, .. }), "{error}");
    }
}

#[test]
fn superclasses_have_a_limit_through_references_too() {
    // Each class's superclass is the one before it, all of them side by side.
    let mut classes = vec![[[0x76].as_slice(), &class("C", 2, &[], &[NULL])].concat()];
    for i in 1..200 {
        // The array's class and the array, then class and Class object in turns.
        let before = reference(2 + 2 * (i - 1));
        classes.push([[0x76].as_slice(), &class("C", 2, &[], &before)].concat());
    }
    let error = parse(&stream(&[&array(&objects_class(), 200, &classes.concat())])).unwrap_err();
    assert!(
        matches!(error.reason, Reason::Limit { what: "superclasses above each other", found: 129, .. }),
        "{error}"
    );
}

#[test]
fn values_have_a_limit_wherever_they_stand() {
    let cases = [
        ("elements", array(&objects_class(), 20, &[NULL; 20])),
        (
            "fields",
            array(
                &objects_class(),
                3,
                &[
                    object(&plain_class("C", &[('Z', "a"), ('Z', "b"), ('Z', "c")]), &[0; 3]),
                    [[0x73].as_slice(), &reference(2), &[0; 3]].concat().repeat(2),
                ]
                .concat(),
            ),
        ),
        ("annotations", object(&[class_start("C", 2, 0), vec![NULL; 20], vec![END, NULL]].concat(), &[])),
        ("descriptors of fields", object(&plain_class("C", &[('Z', ""); 20]), &[0; 20])),
    ];
    for (name, content) in cases {
        let bytes = stream(&[&content]);
        let mut limits = Limits::default();
        limits.max_values = 10;
        let error = Parser::new(&bytes).with_limits(limits).parse().unwrap_err();
        assert!(
            matches!(error.reason, Reason::Limit { what: "values in the stream", found: 11, limit: 10 }),
            "{name}: {error}"
        );
        assert!(parse(&bytes).is_ok(), "{name}");
    }
}

/// An array of arrays that each hold the one before it twice: as a tree, 2^`height` values.
fn doubling(height: u32) -> Vec<u8> {
    let mut content = array(&objects_class(), 1, &[NULL]);
    // Class 0, the outer array 1, then the inner ones.
    let mut inner = vec![
        [[0x75].as_slice(), &reference(0), &2_i32.to_be_bytes(), &string("leaf"), &reference(3)].concat(),
    ];
    for i in 1..height {
        let before = reference(if i == 1 { 2 } else { 2 + i });
        inner.push([[0x75].as_slice(), &reference(0), &2_i32.to_be_bytes(), &before, &before].concat());
    }
    content.clear();
    content.extend(array(&objects_class(), height as i32, &inner.concat()));
    stream(&[&content])
}

#[test]
fn shared_objects_stay_shared() {
    let value = parse(&doubling(100)).unwrap();
    let outer = value.as_array().unwrap();
    assert_eq!(outer.len(), 100);
    // 2^100 values as a tree: shown, cloned and dropped at once.
    let mut shown = String::new();
    write!(shown, "{value:?}{value:#?}{outer:?}{:?}", outer.elements()).unwrap();
    assert!(shown.len() < 1_000_000, "{}", shown.len());
    assert!(shown.contains('…') || shown.contains(".."), "{shown}");
    drop(value.clone());
    drop(value);
    let error = parse(&doubling(128)).unwrap_err();
    assert!(
        matches!(error.reason, Reason::Limit { what: "objects within each other", found: 129, limit: 128 }),
        "{error}"
    );
}

#[test]
fn debug_shows_small_values_whole() {
    let class = class("C", 2, &[('I', "i"), ('L', "o")], &plain_class("S", &[('Z', "z")]));
    let value =
        parse(&stream(&[&object(&class, &[[1, 0, 0, 0, 7].as_slice(), &string("a\n")].concat())])).unwrap();
    assert_eq!(format!("{value:?}"), "C { i: 7, o: \"a\\n\", z: true }");
    let value = parse(&stream(&[&array(&plain_class("[I", &[]), 2, &[0, 0, 0, 1, 0, 0, 0, 2])])).unwrap();
    assert_eq!(format!("{value:?}"), "[I [1, 2]");
}

#[test]
fn long_names_are_cut_in_messages() {
    let value = parse(&stream(&[&string(&"é".repeat(1000))])).unwrap();
    assert_eq!(value.describe(), format!("the text \"{}\"…", "é".repeat(80)));
    let value = parse(&stream(&[&object(&plain_class(&"n".repeat(1000), &[]), &[])])).unwrap();
    assert_eq!(value.describe(), format!("an object of class {}…", "n".repeat(80)));
}

fn integer() -> Vec<u8> {
    object(
        &class("java.lang.Integer", 2, &[('I', "value")], &plain_class("java.lang.Number", &[])),
        &7_i32.to_be_bytes(),
    )
}

#[test]
fn integers() {
    let read = |content: &[u8]| parse(&stream(&[content])).unwrap().as_int();
    assert_eq!(read(&integer()), Some(7));
    assert_eq!(read(&string("7")), None);
    assert_eq!(read(&object(&plain_class("java.lang.Integer", &[]), &[])), None);
    assert_eq!(read(&object(&plain_class("java.lang.Integer", &[('J', "value")]), &[0; 8])), None);
    assert_eq!(read(&object(&plain_class("java.lang.Long", &[('J', "value")]), &[0; 8])), None);
    assert_eq!(Value::Int(-3).as_int(), Some(-3));
}

#[test]
fn tuples() {
    let tuple = |name: &str, fields: &[(char, &str)], data: &[u8]| {
        let value = parse(&stream(&[&object(&plain_class(name, fields), data)])).unwrap();
        value.as_tuple().map(|(a, b)| (tree(a), tree(b)))
    };
    let some = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
    let both = [('L', "_1"), ('L', "_2")];
    assert_eq!(tuple("scala.Tuple2", &both, &[string("a"), vec![NULL]].concat()), some("\"a\"", "null"));
    let ints = [('I', "_1$mcI$sp"), ('I', "_2$mcI$sp")];
    assert_eq!(tuple("scala.Tuple2$mcII$sp", &ints, &[0, 0, 0, 1, 0, 0, 0, 2]), some("I 1", "I 2"));
    let mixed = [('Z', "_1$mcZ$sp"), ('J', "_2$mcJ$sp")];
    assert_eq!(tuple("scala.Tuple2$mcZJ$sp", &mixed, &[1, 0, 0, 0, 0, 0, 0, 0, 2]), some("Z true", "J 2"));
    assert_eq!(tuple("scala.Tuple2", &both[..1], &[NULL]), None);
    assert_eq!(tuple("scala.Tuple3", &both, &[NULL; 2]), None);
    assert_eq!(tuple("scala.Tuple2$mcII$sp", &both, &[NULL; 2]), None);
    assert_eq!(tuple("scala.Tuple2$mcI$sp", &ints, &[0; 8]), None);
    assert_eq!(tuple("my.scala.Tuple2", &both, &[NULL; 2]), None);
}

#[test]
fn options() {
    let option = |content: &[u8]| {
        let value = parse(&stream(&[content])).unwrap();
        value.as_option().map(|option| option.map(tree)).map_err(|e| e.to_string())
    };
    let with_super =
        |name: &str, fields: &[(char, &str)]| class(name, 2, fields, &plain_class("scala.Option", &[]));
    let proxy = |of: &str| {
        let class = plain_class("scala.runtime.ModuleSerializationProxy", &[('L', "moduleClass")]);
        object(&class, &[[0x76].as_slice(), &class_start(of, 2, 0), &[END, NULL]].concat())
    };
    let text = |text: &str| Ok(Some(format!("\"{text}\"")));
    assert_eq!(option(&object(&with_super("scala.None$", &[]), &[])), Ok(None));
    assert_eq!(option(&object(&with_super("scala.Some", &[('L', "value")]), &string("v"))), text("v"));
    assert_eq!(option(&object(&with_super("scala.Some", &[('L', "x")]), &string("2.11"))), text("2.11"));
    assert_eq!(option(&proxy("scala.None$")), Ok(None));
    let refused =
        |found: &str, at: u64| Err(format!("at byte {at}: {found} where a scala.Option is expected"));
    let of_proxy = "an object of class scala.runtime.ModuleSerializationProxy";
    assert_eq!(option(&proxy("scala.collection.immutable.Nil$")), refused(of_proxy, 4));
    assert_eq!(
        option(&object(&with_super("scala.Some", &[]), &[])),
        refused("an object of class scala.Some", 4)
    );
    assert_eq!(option(&integer()), refused("an object of class java.lang.Integer", 4));
    assert_eq!(option(&[NULL]), refused("null", 0));
    assert_eq!(option(&string("v")), refused("the text \"v\"", 0));
}
