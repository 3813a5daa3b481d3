//! The pictures and questions of the first command.
//!
//! Taken by rule, not by taste, from the evaluation set: of each kind the first item that the INT4 export answers right
//! in `eval/eval.jsonl`; and of `where`, its weak spot, the first item, which it answers wrong. A test holds the list to
//! the rule.

/// A question about images or a video, with its true answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Short and unique, as `caption_00`.
    pub name: &'static str,
    /// The kind of question, for people.
    pub kind: &'static str,
    /// Name and PNG of each image.
    pub images: &'static [(&'static str, &'static [u8])],
    /// Name and PNG of each frame of the video, in order.
    pub frames: &'static [(&'static str, &'static [u8])],
    /// The question.
    pub question: &'static str,
    /// The true answer.
    pub answer: &'static str,
}

/// Files of the evaluation set, with their names.
macro_rules! pictures {
    ($($file:literal),*) => { &[$(($file, include_bytes!(concat!("../eval/", $file)).as_slice())),*] };
}

/// The samples, one of each kind.
pub const SAMPLES: &[Sample] = &[
    Sample {
        name: "caption_00",
        kind: "caption",
        images: pictures!["caption_00.png"],
        frames: &[],
        question: "Describe the image.",
        answer: "A purple star left of an orange triangle.",
    },
    Sample {
        name: "vqa_00",
        kind: "question",
        images: pictures!["vqa_00.png"],
        frames: &[],
        question: "What shape is purple?",
        answer: "square",
    },
    Sample {
        name: "count_00",
        kind: "counting",
        images: pictures!["count_00.png"],
        frames: &[],
        question: "How many crosses are there?",
        answer: "1",
    },
    Sample {
        name: "where_00",
        kind: "place (the model's weak spot)",
        images: pictures!["where_00.png"],
        frames: &[],
        question: "Is the orange square left or right of the blue triangle?",
        answer: "right",
    },
    Sample {
        name: "json_01",
        kind: "JSON",
        images: pictures!["json_01.png"],
        frames: &[],
        question: "Describe the shapes in JSON.",
        answer: r#"[{"shape":"triangle","color":"yellow"},{"shape":"circle","color":"green"}]"#,
    },
    Sample {
        name: "digits_00",
        kind: "handwritten digits",
        images: pictures!["digits_00.png"],
        frames: &[],
        question: "Which number is this?",
        answer: "7",
    },
    Sample {
        name: "two_00",
        kind: "two images",
        images: pictures!["two_00a.png", "two_00b.png"],
        frames: &[],
        question: "Describe the first image.",
        answer: "A white cross.",
    },
    Sample {
        name: "video_00",
        kind: "video",
        images: &[],
        frames: pictures!["video_00/0.png", "video_00/1.png", "video_00/2.png", "video_00/3.png"],
        question: "Where does it move?",
        answer: "down",
    },
];
