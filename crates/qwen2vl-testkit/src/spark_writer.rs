//! Files as `RDD.saveAsObjectFile` of Spark writes them: SequenceFiles of Java arrays of ten. For packages that no real
//! Spark would write; what it does write is in `tests/models` and `tests/golden`.

/// A Java object that a saved annotator may hold.
#[derive(Debug, Clone)]
pub enum JavaValue {
    /// `java.lang.String`.
    Text(String),
    /// `java.lang.Integer`.
    Int(i32),
    /// `scala.Tuple2`.
    Pair(Box<JavaValue>, Box<JavaValue>),
    /// Spark NLP's `GenerationConfig` without options: bos, eos, pad, size of the vocabulary.
    Generation([i32; 4]),
}

impl JavaValue {
    /// An element of `Map[String, Int]`.
    pub fn entry(text: &str, number: i32) -> Self {
        Self::Pair(Box::new(Self::Text(text.to_owned())), Box::new(Self::Int(number)))
    }

    /// An element of `Map[(String, String), Int]`.
    pub fn merge(a: &str, b: &str, rank: i32) -> Self {
        let pair = Self::Pair(Box::new(Self::Text(a.to_owned())), Box::new(Self::Text(b.to_owned())));
        Self::Pair(Box::new(pair), Box::new(Self::Int(rank)))
    }
}

const TUPLE: &str = "scala.Tuple2";
const GENERATION: &str = "com.johnsnowlabs.ml.ai.util.Generation.GenerationConfig";
const SYNC: [u8; 16] = *b"sync marker here";

/// One part file.
pub fn object_file(elements: &[JavaValue]) -> Vec<u8> {
    let mut file = b"SEQ\x06".to_vec();
    for class in ["org.apache.hadoop.io.NullWritable", "org.apache.hadoop.io.BytesWritable"] {
        file.push(u8::try_from(class.len()).expect("short names"));
        file.extend(class.as_bytes());
    }
    file.extend([0; 6]);
    file.extend(SYNC);
    for group in elements.chunks(10) {
        let mut stream = vec![0xac, 0xed, 0, 5, 0x75];
        let class = if matches!(group[0], JavaValue::Generation(_)) { GENERATION } else { TUPLE };
        class_descriptor(&mut stream, &format!("[L{class};"), &[], None);
        stream.extend(length(group.len()));
        group.iter().for_each(|value| write(&mut stream, value));
        file.extend(length(stream.len() + 4));
        file.extend([0; 4]);
        file.extend(length(stream.len()));
        file.extend(stream);
    }
    file
}

fn write(stream: &mut Vec<u8>, value: &JavaValue) {
    match value {
        JavaValue::Text(text) => {
            stream.push(0x74);
            utf(stream, text);
        }
        JavaValue::Int(number) => {
            stream.push(0x73);
            class_descriptor(stream, "java.lang.Integer", &[('I', "value")], Some("java.lang.Number"));
            stream.extend(number.to_be_bytes());
        }
        JavaValue::Pair(a, b) => {
            stream.push(0x73);
            class_descriptor(stream, TUPLE, &[('L', "_1"), ('L', "_2")], None);
            write(stream, a);
            write(stream, b);
        }
        JavaValue::Generation(ids) => {
            stream.push(0x73);
            let fields = [
                ('I', "bosId"),
                ('I', "eosId"),
                ('I', "padId"),
                ('I', "vocabSize"),
                ('L', "beginSuppressTokens"),
                ('L', "forcedDecoderIds"),
                ('L', "suppressTokenIds"),
            ];
            class_descriptor(stream, GENERATION, &fields, None);
            stream.extend(ids.iter().flat_map(|id| id.to_be_bytes()));
            for _ in 0..3 {
                stream.push(0x73);
                class_descriptor(stream, "scala.None$", &[], Some("scala.Option"));
            }
        }
    }
}

fn class_descriptor(stream: &mut Vec<u8>, name: &str, fields: &[(char, &str)], parent: Option<&str>) {
    stream.push(0x72);
    utf(stream, name);
    stream.extend([0; 8]);
    stream.push(2);
    stream.extend(u16::try_from(fields.len()).expect("few fields").to_be_bytes());
    for (kind, field) in fields {
        stream.push(*kind as u8);
        utf(stream, field);
        if *kind == 'L' {
            stream.push(0x74);
            utf(stream, "Ljava/lang/Object;");
        }
    }
    stream.push(0x78);
    match parent {
        Some(parent) => class_descriptor(stream, parent, &[], None),
        None => stream.push(0x70),
    }
}

/// Modified UTF-8 is UTF-8 for what tests write: neither U+0000 nor anything above U+FFFF.
fn utf(stream: &mut Vec<u8>, text: &str) {
    stream.extend(u16::try_from(text.len()).expect("short texts").to_be_bytes());
    stream.extend(text.as_bytes());
}

fn length(length: usize) -> [u8; 4] {
    i32::try_from(length).expect("small test files").to_be_bytes()
}
