//! Tables of answers, and what must hold for any text.

use proptest::prelude::*;
use qwen2vl_preprocess::ImageSize;
use qwen2vl_testkit::check_all;
use qwen2vl_types::GridThw;

use super::*;
use crate::MediaInfo;

/// An event in short: `label (x1,y1,x2,y2)`, with `~` if clamped, `quad`, `#n` for a picture; `! text | reason`.
fn short(event: &BoxEvent) -> String {
    match event {
        BoxEvent::Malformed(m) => format!("! {} | {}", m.text, m.reason),
        BoxEvent::Box(b) => {
            let Corners { x1, y1, x2, y2 } = b.corners;
            let clamped = if b.clamped { "~" } else { "" };
            let quad = b.quad.map_or(String::new(), |_| " quad".to_owned());
            let picture = b.picture.map_or(String::new(), |n| format!(" #{n}"));
            format!("{}({x1},{y1},{x2},{y2}){clamped}{quad}{picture}", b.label.as_deref().unwrap_or("-"))
        }
    }
}

fn check(forms: BoxForms, cases: &[(&str, &[&str])]) {
    check_all(
        cases,
        |c| c.0.to_owned(),
        |(text, want)| {
            let whole: Vec<String> = BoxParser::parse(text, forms).iter().map(short).collect();
            if whole != *want {
                return Err(format!("{whole:#?}, want {want:#?}"));
            }
            for n in 1..text.chars().count() {
                let cut: Vec<String> = in_pieces(text, n, forms).iter().map(short).collect();
                if cut != whole {
                    return Err(format!("in pieces of {n}: {cut:?}"));
                }
            }
            Ok(())
        },
    );
}

fn in_pieces(text: &str, n: usize, forms: BoxForms) -> Vec<BoxEvent> {
    let characters: Vec<char> = text.chars().collect();
    let mut parser = BoxParser::new(forms);
    let mut events = Vec::new();
    for piece in characters.chunks(n.max(1)) {
        events.extend(parser.push(&piece.iter().collect::<String>()));
    }
    events.extend(parser.finish());
    events
}

#[test]
fn marked_boxes() {
    let cases: &[(&str, &[&str])] = &[
        ("", &[]),
        ("A dog (1,2),(3,4) [1,2,3,4] <box>(1,2),(3,4)</box> {\"bbox_2d\": [1,2,3,4]}", &[]),
        (
            "<|object_ref_start|>blue circle<|object_ref_end|><|box_start|>(550,160),(870,420)<|box_end|>",
            &["blue circle(550,160,870,420)"],
        ),
        // Several boxes of a label, also with white space and commas; a word ends it.
        (
            "<|object_ref_start|>cats<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>, \
             <|box_start|>(5,6),(7,8)<|box_end|> and <|box_start|>(9,10),(11,12)<|box_end|>",
            &["cats(1,2,3,4)", "cats(5,6,7,8)", "-(9,10,11,12)"],
        ),
        // Words may stand between a label and its first box.
        (
            "<|object_ref_start|> the dog <|object_ref_end|> is at <|box_start|> ( 1 , 2 ) , ( 3 , 4 ) <|box_end|>.",
            &["the dog(1,2,3,4)"],
        ),
        ("<|box_start|>(1,2),(3,4)<|box_end|>", &["-(1,2,3,4)"]),
        ("<|object_ref_start|><|object_ref_end|><|box_start|>1,2 3,4<|box_end|>", &["-(1,2,3,4)"]),
        ("<|box_start|>[1.5, 2, 3, 4.25]<|box_end|>", &["-(1.5,2,3,4.25)"]),
        ("<|quad_start|>(10,10),(90,20),(80,90),(5,60)<|quad_end|>", &["-(5,10,90,90) quad"]),
        // Corners in any order; out of range.
        ("<|box_start|>(30,40),(10,20)<|box_end|>", &["-(10,20,30,40)"]),
        ("<|box_start|>(30,20),(10,40)<|box_end|>", &["-(10,20,30,40)"]),
        ("<|box_start|>(-5,20),(1001,40)<|box_end|>", &["-(0,20,1000,40)~"]),
        ("<|box_start|>(0,0),(1000,1000)<|box_end|>", &["-(0,0,1000,1000)"]),
        // A label that does not end before its box.
        ("<|object_ref_start|>dog<|box_start|>(1,2),(3,4)<|box_end|>", &["dog(1,2,3,4)"]),
        // Pictures.
        (
            "Picture 1: <|box_start|>(1,2),(3,4)<|box_end|> image 2: <|box_start|>(1,2),(3,4)<|box_end|> pictures 3 \
             <|box_start|>(1,2),(3,4)<|box_end|>",
            &["-(1,2,3,4) #1", "-(1,2,3,4) #2", "-(1,2,3,4) #2"],
        ),
        (
            "<|object_ref_start|>dog in Picture 2<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>\
             <|object_ref_start|>cat<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>",
            &["dog in Picture 2(1,2,3,4) #2", "cat(1,2,3,4)"],
        ),
    ];
    check(BoxForms::Marked, cases);
}

#[test]
fn malformed_marked_boxes_are_reported_with_their_text() {
    let cases: &[(&str, &[&str])] = &[
        (
            "<|box_start|>(1,2),(3<|box_end|>",
            &["! <|box_start|>(1,2),(3<|box_end|> | 3 numbers, a box has 4"],
        ),
        ("<|box_start|><|box_end|>", &["! <|box_start|><|box_end|> | 0 numbers, a box has 4"]),
        (
            "<|box_start|>(1,2),(3,x)<|box_end|>",
            &["! <|box_start|>(1,2),(3,x)<|box_end|> | \"x\" is no number"],
        ),
        (
            "<|box_start|>(1,2),(3,1e9)<|box_end|>",
            &["! <|box_start|>(1,2),(3,1e9)<|box_end|> | \"1e9\" is no number"],
        ),
        ("<|box_start|>(1,2),(3,4", &["! <|box_start|>(1,2),(3,4 | cut off"]),
        ("<|object_ref_start|>dog", &["! <|object_ref_start|>dog | cut off"]),
        (
            "<|object_ref_start|>dog<|object_ref_end|><|box_start|>(1,2),(",
            &["! <|box_start|>(1,2),( | cut off"],
        ),
        ("<|object_ref_start|>dog<|object_ref_end|> is gone", &["! dog | a label without a box"]),
        (
            "<|object_ref_start|>dog<|object_ref_end|><|object_ref_start|>cat<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>",
            &["! dog | a label without a box", "cat(1,2,3,4)"],
        ),
        (
            "<|object_ref_start|>dog<|object_ref_start|>cat<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>",
            &["! <|object_ref_start|>dog | <|object_ref_start|> where it has not ended", "cat(1,2,3,4)"],
        ),
        (
            "<|box_start|>(1,2)<|box_start|>(1,2),(3,4)<|box_end|>",
            &["! <|box_start|>(1,2) | <|box_start|> where it has not ended", "-(1,2,3,4)"],
        ),
        (
            "<|box_start|>(1,2),(3,4)<|quad_end|>",
            &["! <|box_start|>(1,2),(3,4) | <|quad_end|> where it has not ended"],
        ),
        ("x<|box_end|>", &["! <|box_end|> | <|box_end|> without its beginning"]),
        ("<|object_ref_end|>", &["! <|object_ref_end|> | <|object_ref_end|> without its beginning"]),
        ("<|box_start|>(5,5),(5,9)<|box_end|>", &["! <|box_start|>(5,5),(5,9)<|box_end|> | no area"]),
        (
            "<|box_start|>(1100,5),(1200,9)<|box_end|>",
            &["! <|box_start|>(1100,5),(1200,9)<|box_end|> | no area within 0 to 1000"],
        ),
        (
            "<|quad_start|>(1,2),(3,4)<|quad_end|>",
            &["! <|quad_start|>(1,2),(3,4)<|quad_end|> | 4 numbers, a quad has 8"],
        ),
        (
            "<|box_start|>(1,2),(3,99999999999999999999)<|box_end|>",
            &[
                "! <|box_start|>(1,2),(3,99999999999999999999)<|box_end|> | \"99999999999999999999\" is no number",
            ],
        ),
        // A mark that is not one.
        ("<<|box_start|", &[]),
        ("<|box_<|box_start|>(1,2),(3,4)<|box_end|>", &["-(1,2,3,4)"]),
    ];
    check(BoxForms::Marked, cases);
}

#[test]
fn free_forms() {
    let cases: &[(&str, &[&str])] = &[
        ("(1,2),(3,4)", &["-(1,2,3,4)"]),
        ("( 1, 2 ) ( 3, 4 )", &["-(1,2,3,4)"]),
        ("The dog is at (1,2),\n(3,4).", &["-(1,2,3,4)"]),
        ("[1, 2, 3, 4]", &["-(1,2,3,4)"]),
        ("(1, 2, 3, 4)", &["-(1,2,3,4)"]),
        ("[[1, 2], [3, 4]]", &["-(1,2,3,4)"]),
        ("[[1,2,3,4],[5,6,7,8]]", &["-(1,2,3,4)", "-(5,6,7,8)"]),
        ("[(1,2),(9,3),(8,9),(2,8)]", &["-(1,2,9,9) quad"]),
        ("[1,2,9,3,8,9,2,8]", &["-(1,2,9,9) quad"]),
        ("(1,2),(3,4),(5,6),(7,8)", &["-(1,2,3,4)", "-(5,6,7,8)"]),
        ("1,2 3,4", &["-(1,2,3,4)"]),
        ("dog: 1, 2, 3, 4\ncat: 5,6 7,8.\n", &["dog(1,2,3,4)", "cat(5,6,7,8)"]),
        (
            "- **red dog**: [1,2,3,4], [5,6,7,8]; 2. cat: (1,2),(3,4)",
            &["red dog(1,2,3,4)", "red dog(5,6,7,8)", "cat(1,2,3,4)"],
        ),
        ("1. dog: (1,2),(3,4)\nthe cat (5,6),(7,8)", &["dog(1,2,3,4)", "-(5,6,7,8)"]),
        ("狗:(1,2),(3,4)", &["狗(1,2,3,4)"]),
        ("狗\u{ff1a}\u{ff08}1\u{ff0c}2\u{ff09}\u{ff0c}\u{ff08}3\u{ff0c}4\u{ff09}", &["狗(1,2,3,4)"]),
        ("<ref>dog</ref><box>(1,2),(3,4)</box>", &["dog(1,2,3,4)"]),
        ("<|object_ref_start|>dog<|object_ref_end|>(1,2),(3,4)", &["dog(1,2,3,4)"]),
        ("<|object_ref_start|>dog<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>", &["dog(1,2,3,4)"]),
        ("(30,40),(10,1200)", &["-(10,40,30,1000)~"]),
        // Numbers in prose.
        ("In 2020 (1,234) were [1] and [2, 3] (a, 4) 1, 2 and 3, 4. [1,2,3] (1,2) f(3,4) - 12:30 {x}", &[]),
        ("[1,2,3,4e]", &[]),
        // Meant as a box.
        ("(1,2),(3)", &["! (1,2),(3) | one corner, a box has two"]),
        ("(1,2),(3,x)", &["! (1,2),(3,x | one corner, a box has two"]),
        ("dog: (1,2),(3,", &["! (1,2),(3, | cut off"]),
        ("dog: [1, 2, 3", &["! [1, 2, 3 | cut off"]),
        ("[5,5,5,5]", &["! [5,5,5,5] | no area"]),
        ("5,5 5,5", &["! 5,5 5,5 | no area"]),
    ];
    check(BoxForms::Any, cases);
}

#[test]
fn json_forms() {
    let cases: &[(&str, &[&str])] = &[
        (r#"{"bbox_2d": [1, 2, 3, 4], "label": "dog"}"#, &["dog(1,2,3,4)"]),
        (
            "```json\n[\n\t{\"bbox_2d\": [1, 2, 3, 4], \"label\": \"dog\"},\n\t{\"label\": \"a {cat}\", \"box\": [[5,6],[7,8]]}\n]\n```",
            &["dog(1,2,3,4)", "a {cat}(5,6,7,8)"],
        ),
        (
            r#"{"objects": [{"name": "dog", "bbox": [1,2,3,4]}, {"name": "cat", "bbox": [5,6,7,8]}], "count": 2}"#,
            &["dog(1,2,3,4)", "cat(5,6,7,8)"],
        ),
        (r#"{"label": "dog", "box": {"x1": 1, "y1": 2, "x2": 3, "y2": 4}}"#, &["dog(1,2,3,4)"]),
        (r#"{"label": "dog", "xmin": 1, "ymin": 2, "xmax": 3, "ymax": 4}"#, &["dog(1,2,3,4)"]),
        (r#"{"x1": 1, "y1": 2, "x2": 3, "y2": 4}"#, &["-(1,2,3,4)"]),
        (r#"{"label": "dogs", "bbox_2d": [[1,2,3,4],[5,6,7,8]]}"#, &["dogs(1,2,3,4)", "dogs(5,6,7,8)"]),
        (r#"{"label": "dog", "box": "(1,2),(3,4)"}"#, &["dog(1,2,3,4)"]),
        (r#"{"quad": [1,2,9,3,8,9,2,8]}"#, &["-(1,2,9,9) quad"]),
        ("{'bbox_2d': [1, 2, 3, 4], 'label': 'dog'}", &["dog(1,2,3,4)"]),
        (r#"{"image": "Picture 2", "bbox_2d": [1,2,3,4]}"#, &["-(1,2,3,4) #2"]),
        // Objects about something else; a box in words in one of them.
        (r#"{"count": 3, "box": null} {"a": {"b": [1,2]}}"#, &[]),
        (r#"{"answer": "at (1,2),(3,4)"}"#, &["-(1,2,3,4)"]),
        ("{dog (1,2),(3,4)", &["-(1,2,3,4)"]),
        ("{it's} (1,2),(3,4)", &["-(1,2,3,4)"]),
        // Meant as a box.
        (
            r#"[{"bbox_2d": [1,2,3,4], "label": "dog"}, {"bbox_2d": [5, 6"#,
            &["dog(1,2,3,4)", "! {\"bbox_2d\": [5, 6 | cut off"],
        ),
        (r#"{"bbox_2d": [1,2,3]}"#, &["! {\"bbox_2d\": [1,2,3]} | 3 numbers, a box has 4 and a quad 8"]),
        (r#"{"bbox_2d": "none"}"#, &["! {\"bbox_2d\": \"none\"} | \"none\" is no number"]),
        (r#"{"bbox_2d": [1,2,"3",4]}"#, &["! {\"bbox_2d\": [1,2,\"3\",4]} | neither 4 nor 8 numbers"]),
        (r#"{"bbox_2d": {"x": 1}}"#, &["! {\"bbox_2d\": {\"x\": 1}} | neither 4 nor 8 numbers"]),
        (
            r#"{"bbox_2d": [1,2,3,4}"#,
            &["! {\"bbox_2d\": [1,2,3,4} | no JSON: expected `,` or `]` at line 1 column 21"],
        ),
        (
            r#"{"bbox_2d": [1,2,3,4]<|box_start|>(1,2),(3,4)<|box_end|>"#,
            &["! {\"bbox_2d\": [1,2,3,4] | an object that does not end", "-(1,2,3,4)"],
        ),
    ];
    check(BoxForms::Any, cases);
}

#[test]
fn nothing_is_read_when_off() {
    assert!(BoxParser::parse("<|box_start|>(1,2),(3,4)<|box_end|>", BoxForms::Off).is_empty());
}

#[test]
fn what_never_ends_is_bounded() {
    let long = |piece: &str| piece.repeat(200_000 / piece.len());
    for piece in [
        "<|box_start|>",
        "<|object_ref_start|>",
        "(",
        "[1,",
        "{",
        "{\"bbox_2d\":",
        "{\"",
        "x",
        "1",
        "<",
        "(1,2),",
        "{'",
    ] {
        let prefixes = ["", "<|object_ref_start|>", "<|box_start|>", "{\"bbox_2d\": [", "dog: "];
        for text in prefixes.map(|prefix| format!("{prefix}{}", long(piece))) {
            for forms in [BoxForms::Marked, BoxForms::Any] {
                let events = BoxParser::parse(&text, forms);
                assert!(events.len() <= MAX_EVENTS + 1, "{piece}: {}", events.len());
                let longest = events.iter().map(|e| match e {
                    BoxEvent::Malformed(m) => m.text.chars().count(),
                    BoxEvent::Box(b) => b.label.as_ref().map_or(0, |l| l.chars().count()),
                });
                assert!(longest.max().unwrap_or(0) <= MAX_TEXT_CHARS + 1, "{piece}");
            }
        }
    }
    let many = "<|box_start|>(1,2),(3,4)<|box_end|>".repeat(MAX_EVENTS + 5);
    let events = BoxParser::parse(&many, BoxForms::Marked);
    assert_eq!(events.len(), MAX_EVENTS + 1);
    assert!(short(&events[MAX_EVENTS]).contains("more than 4096 boxes"));
}

fn media(sizes: &[(u32, u32)]) -> Vec<MediaInfo> {
    let one = |(i, (width, height)): (usize, &(u32, u32))| MediaInfo {
        input: format!("image {}", i + 1),
        is_video: false,
        size: ImageSize { height: *height, width: *width },
        resized: ImageSize { height: 28, width: 28 },
        grid_thw: GridThw { t: 1, h: 2, w: 2 },
        tokens: 1,
    };
    sizes.iter().enumerate().map(one).collect()
}

#[test]
fn boxes_are_placed_in_pixels_of_the_image_that_is_named() {
    const BOX: &str = "<|box_start|>(100,200),(300,1000)<|box_end|>";
    let two = [(1000, 2000), (640, 480)];
    let (first, second) = ([100.0, 400.0, 300.0, 2000.0], [64.0, 96.0, 192.0, 480.0]);
    let label = |text: &str| format!("<|object_ref_start|>{text}<|object_ref_end|>{BOX}");
    let cases = [
        (BOX.to_owned(), "Where?", 0, first),
        (BOX.to_owned(), "Where in Picture 2?", 1, second),
        (BOX.to_owned(), "Is what picture 1 shows in picture 2?", 0, first),
        (format!("In image 2: {BOX}"), "Where in Picture 1?", 1, second),
        (label("Picture 2"), "Where?", 1, second),
        (format!("Picture 1: {}", label("dog of photo #2")), "Where?", 1, second),
        (format!("Picture 7: {BOX}"), "Where?", 0, first),
        (format!("Picture 0: {BOX}"), "Where?", 0, first),
        (format!("Picture 99999999999999999999999: {BOX}"), "In image 2?", 1, second),
    ];
    check_all(
        &cases,
        |c| format!("{:?} {:?}", c.0, c.1),
        |(answer, question, image, [x1, y1, x2, y2])| {
            let picture = question_picture(question);
            let read = AnswerBoxes::read(answer, BoxForms::Marked, &media(&two), 2, picture);
            let [one] = &read.boxes[..] else { return Err(format!("{read:?}")) };
            let want = (*image, Corners { x1: *x1, y1: *y1, x2: *x2, y2: *y2 });
            let right = (one.image, one.bbox) == want && read.of_image(*image).count() == 1;
            if right { Ok(()) } else { Err(format!("{one:?}")) }
        },
    );
    // One image: whatever it is called.
    let read = AnswerBoxes::read(&label("Picture 2"), BoxForms::Marked, &media(&two[..1]), 1, Some(2));
    assert_eq!(read.boxes[0].image, 0);
    // A video, and nothing at all.
    let read = AnswerBoxes::read(BOX, BoxForms::Marked, &media(&two[1..]), 0, None);
    assert_eq!(read.boxes[0].bbox.x1, 64.0);
    let read = AnswerBoxes::read(&label("dog"), BoxForms::Marked, &[], 0, None);
    assert_eq!(read.malformed[0], MalformedBox::new("dog(100,200),(300,1000)", "a box, but no image"));
}

#[test]
fn boxes_are_serialized_as_documented() {
    let answer = "<|object_ref_start|>dog<|object_ref_end|><|box_start|>(100,200),(300,1200)<|box_end|>\
                  <|quad_start|>(0,0),(10,0),(10,10),(0,10)<|quad_end|>";
    let read = AnswerBoxes::read(answer, BoxForms::Marked, &media(&[(640, 480)]), 1, None);
    assert_eq!(
        serde_json::to_string(&read.boxes).unwrap(),
        "[{\"label\":\"dog\",\"image\":0,\"bbox\":[64.0,96.0,192.0,480.0],\"bbox_1000\":[100.0,200.0,300.0,1000.0],\
         \"clamped\":true},{\"label\":\"dog\",\"image\":0,\"bbox\":[0.0,0.0,6.4,4.8],\
         \"bbox_1000\":[0.0,0.0,10.0,10.0],\"quad\":[[0.0,0.0],[6.4,0.0],[6.4,4.8],[0.0,4.8]]}]"
    );
}

#[test]
fn coco_has_ids_from_1_and_yolo_parts_of_the_image() {
    let answer = "<|object_ref_start|>dog<|object_ref_end|><|box_start|>(100,200),(300,1000)<|box_end|>\
                  <|object_ref_start|>a\ncat<|object_ref_end|><|quad_start|>(0,0),(100,0),(100,100),(0,50)<|quad_end|>";
    let size = ImageSize { height: 480, width: 640 };
    let read = AnswerBoxes::read(answer, BoxForms::Marked, &media(&[(640, 480)]), 1, None);
    let (mut coco, mut yolo) = (Coco::default(), YoloClasses::default());
    coco.add("a.png", size, []);
    coco.add("b.png", size, &read.boxes);
    coco.add("a.png", size, &read.boxes[..1]);
    let coco = serde_json::to_value(&coco).unwrap();
    assert_eq!(
        coco["images"],
        serde_json::json!([
            { "id": 1, "file_name": "a.png", "width": 640, "height": 480 },
            { "id": 2, "file_name": "b.png", "width": 640, "height": 480 }
        ])
    );
    assert_eq!(
        coco["categories"],
        serde_json::json!([
            { "id": 1, "name": "dog", "supercategory": "" },
            { "id": 2, "name": "a cat", "supercategory": "" }
        ])
    );
    assert_eq!(
        coco["annotations"],
        serde_json::json!([
            { "id": 1, "image_id": 2, "category_id": 1, "bbox": [64.0, 96.0, 128.0, 384.0], "area": 49152.0,
              "segmentation": [], "iscrowd": 0 },
            { "id": 2, "image_id": 2, "category_id": 2, "bbox": [0.0, 0.0, 64.0, 48.0], "area": 2304.0,
              "segmentation": [[0.0, 0.0, 64.0, 0.0, 64.0, 48.0, 0.0, 24.0]], "iscrowd": 0 },
            { "id": 3, "image_id": 1, "category_id": 1, "bbox": [64.0, 96.0, 128.0, 384.0], "area": 49152.0,
              "segmentation": [], "iscrowd": 0 }
        ])
    );
    let lines: Vec<String> = read.boxes.iter().map(|b| yolo.line(b, size)).collect();
    assert_eq!(lines, ["0 0.200000 0.600000 0.200000 0.800000", "1 0.050000 0.050000 0.100000 0.100000"]);
    assert_eq!(yolo.names(), ["dog", "a cat"]);
}

/// Texts of the parts that answers with boxes are made of, and of any characters.
fn texts() -> impl Strategy<Value = String> {
    let parts = [
        "<|object_ref_start|>",
        "<|object_ref_end|>",
        "<|box_start|>",
        "<|box_end|>",
        "<|quad_start|>",
        "<|quad_end|>",
        "<box>",
        "</box>",
        "(1,2),(3,4)",
        "(",
        ")",
        "[",
        "]",
        ",",
        "12",
        "-7",
        "1001",
        ".",
        " ",
        "\n",
        "dog",
        "Picture 2",
        ": ",
        "{\"bbox_2d\": ",
        "\"label\": \"cat\"",
        "{",
        "}",
        "\"",
        "'",
        "\\",
        "é狗",
        "null",
    ];
    let part =
        prop_oneof![4 => proptest::sample::select(parts.to_vec()).prop_map(str::to_owned), 1 => ".{0,3}"];
    proptest::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn however_it_is_cut_the_boxes_are_the_same_and_within_the_image(text in texts(), sizes in proptest::collection::vec(1usize..9, 1..20)) {
        for forms in [BoxForms::Marked, BoxForms::Any] {
            let whole = BoxParser::parse(&text, forms);
            let mut parser = BoxParser::new(forms);
            let mut cut = Vec::new();
            let mut rest = text.chars();
            for size in sizes.iter().cycle() {
                let piece: String = rest.by_ref().take(*size).collect();
                if piece.is_empty() {
                    break;
                }
                cut.extend(parser.push(&piece));
            }
            cut.extend(parser.finish());
            prop_assert_eq!(&whole, &cut);
            let read = AnswerBoxes::read(&text, forms, &media(&[(640, 480), (7, 5)]), 2, None);
            prop_assert_eq!(read.boxes.len() + read.malformed.len(), whole.len());
            for one in &read.boxes {
                let (width, height) = [(640.0, 480.0), (7.0, 5.0)][one.image];
                let Corners { x1, y1, x2, y2 } = one.bbox;
                prop_assert!(0.0 <= x1 && x1 < x2 && x2 <= width && 0.0 <= y1 && y1 < y2 && y2 <= height);
            }
        }
    }

    /// Everything that is marked as a box is a box or is reported.
    #[test]
    fn no_marked_box_is_dropped(inners in proptest::collection::vec("[0-9(),. x-]{0,20}", 0..10)) {
        let text: String = inners.iter().map(|inner| format!("<|box_start|>{inner}<|box_end|>")).collect();
        prop_assert_eq!(BoxParser::parse(&text, BoxForms::Marked).len(), inners.len());
    }
}
