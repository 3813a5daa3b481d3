//! `qwen2vl annotate --draw --boxes --yolo`: the demo model's boxes, in rows and files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{evaluation, has_openvino, run, text};

/// The evaluation's questions about places: image, question, name, and INT4's answer through optimum-intel.
fn questions() -> Vec<(String, String, String, String)> {
    let rows: Vec<Value> = qwen2vl_testkit::read_jsonl(&qwen2vl_testkit::evaluation("eval.jsonl"));
    let boxes = rows.iter().filter(|row| row["task"] == "box");
    let field = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    boxes
        .map(|row| {
            let answer = field(row, "answer");
            let name = answer.split("<|object_ref_end|>").next().unwrap().replace("<|object_ref_start|>", "");
            let image = evaluation(row["images"][0].as_str().unwrap());
            (image, field(row, "question"), name, field(row, "int4"))
        })
        .collect()
}

fn table(dir: &Path, rows: &[Value]) -> PathBuf {
    let path = dir.join("table.jsonl");
    let lines: Vec<String> = rows.iter().map(ToString::to_string).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    path
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn size_of(image: &str) -> (f64, f64) {
    let (width, height) = image::image_dimensions(image).unwrap();
    (f64::from(width), f64::from(height))
}

#[test]
fn the_demo_models_boxes_come_as_rows_pictures_coco_and_yolo() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let questions = questions();
    assert!(questions.len() >= 10, "{}", questions.len());
    let rows: Vec<Value> =
        questions.iter().map(|(image, prompt, ..)| json!({ "image": image, "prompt": prompt })).collect();
    let (table, draw, coco, yolo) = (
        table(dir.path(), &rows),
        dir.path().join("draw"),
        dir.path().join("coco.json"),
        dir.path().join("y/o"),
    );
    let [table, draw_dir, coco_file, yolo_dir] = [&table, &draw, &coco, &yolo].map(|p| text(p));
    let ran = run(&[
        "annotate", &table, "--format", "jsonl", "--draw", &draw_dir, "--boxes", &coco_file, "--yolo",
        &yolo_dir,
    ]);
    let exact = run(&["annotate", &table, "--format", "jsonl", "--precision", "f32"]).rows();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));

    // Rows: the name that was asked for, in pixels of the image, the text as it was.
    let rows = ran.rows();
    assert_eq!(exact.len(), rows.len());
    let (mut same, mut near) = (0, 0);
    for ((row, exact), (image, question, name, int4)) in rows.iter().zip(&exact).zip(&questions) {
        let [one] = &row["boxes"].as_array().unwrap()[..] else { panic!("{question}: {row}") };
        assert_eq!((&one["label"], &one["image"]), (&json!(name), &json!(0)), "{question}");
        let (width, height) = size_of(image);
        let (pixels, scaled) = (floats(&one["bbox"]), floats(&one["bbox_1000"]));
        for (i, side) in [width, height, width, height].iter().enumerate() {
            assert!(
                (0.0..=*side).contains(&pixels[i]) && (pixels[i] - scaled[i] * side / 1000.0).abs() < 1e-9
            );
        }
        let spelled = format!(
            "<|object_ref_start|>{name}<|object_ref_end|><|box_start|>({},{}),({},{})<|box_end|>",
            scaled[0], scaled[1], scaled[2], scaled[3]
        );
        assert_eq!(row["result"], spelled, "{question}");
        same += usize::from(row["result"] == exact["result"]);
        let (_, place) = int4.split_once("<|box_start|>").unwrap();
        let numbers = place.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<f64>().ok());
        let numbers: Vec<f64> = numbers.collect();
        assert_eq!(numbers.len(), 4, "{int4}");
        near += usize::from(numbers.iter().zip(&scaled).all(|(want, got)| (want - got).abs() <= 50.0));
    }
    // Kernels round differently, and the reference's answers here are those of one CPU's half precision. Single precision is
    // the reference's to the token: the end-to-end tests.
    println!("{same} of {} as in single precision, {near} near the reference's", questions.len());
    assert!(same * 2 > questions.len() && near * 4 >= questions.len() * 3);

    check_coco(&coco, &rows);
    check_yolo(&yolo, &rows);

    // A picture per row, in the image's size, and different from it along the box alone.
    assert_eq!(fs::read_dir(&draw).unwrap().count(), rows.len());
    let drawn = image::open(draw.join("box_00.boxes.png")).unwrap().into_rgb8();
    let original = image::open(evaluation("box_00.png")).unwrap().into_rgb8();
    assert_eq!(drawn.dimensions(), original.dimensions());
    let pixels = floats(&rows[0]["boxes"][0]["bbox"]);
    let corner = (pixels[0].floor() as u32, pixels[3].ceil() as u32 - 1);
    assert_ne!(drawn.get_pixel(corner.0, corner.1), original.get_pixel(corner.0, corner.1));
    let changed = drawn.pixels().zip(original.pixels()).filter(|(a, b)| a != b).count();
    assert!(changed > 40 && changed * 2 < (original.width() * original.height()) as usize, "{changed}");
}

fn check_coco(path: &Path, rows: &[Value]) {
    let coco: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let by_id = |list: &str, field: &str| -> BTreeMap<u64, String> {
        let entries = coco[list].as_array().unwrap().iter();
        entries.map(|e| (e["id"].as_u64().unwrap(), e[field].as_str().unwrap().to_owned())).collect()
    };
    let (files, names) = (by_id("images", "file_name"), by_id("categories", "name"));
    let annotations = coco["annotations"].as_array().unwrap();
    assert_eq!(annotations.len(), rows.len());
    for ((annotation, row), id) in annotations.iter().zip(rows).zip(1..) {
        let one = &row["boxes"][0];
        let bbox = floats(&annotation["bbox"]);
        let corners = [bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3]];
        assert!(floats(&one["bbox"]).iter().zip(corners).all(|(a, b)| (a - b).abs() < 1e-9), "{annotation}");
        assert_eq!(annotation["id"], id);
        assert_eq!(row["input"], files[&annotation["image_id"].as_u64().unwrap()]);
        assert_eq!(one["label"], names[&annotation["category_id"].as_u64().unwrap()]);
    }
    // Each image once, with its size, however often it was asked about.
    assert!(files.len() < rows.len());
    for image in coco["images"].as_array().unwrap() {
        let (width, height) = size_of(image["file_name"].as_str().unwrap());
        assert_eq!((image["width"].as_f64(), image["height"].as_f64()), (Some(width), Some(height)));
    }
}

fn check_yolo(folder: &Path, rows: &[Value]) {
    let classes = fs::read_to_string(folder.join("classes.txt")).unwrap();
    let classes: Vec<&str> = classes.lines().collect();
    let mut lines: BTreeMap<String, Vec<(String, Vec<f64>)>> = BTreeMap::new();
    for row in rows {
        let image = row["input"].as_str().unwrap();
        let stem = Path::new(image).file_stem().unwrap().to_str().unwrap().to_owned();
        let (b, (width, height)) = (floats(&row["boxes"][0]["bbox"]), size_of(image));
        let middle = [(b[0] + b[2]) / 2.0 / width, (b[1] + b[3]) / 2.0 / height];
        let sides = [(b[2] - b[0]) / width, (b[3] - b[1]) / height];
        let label = row["boxes"][0]["label"].as_str().unwrap().to_owned();
        lines.entry(stem).or_default().push((label, [middle, sides].concat()));
    }
    assert_eq!(fs::read_dir(folder).unwrap().count(), lines.len() + 1);
    for (stem, want) in lines {
        let got = fs::read_to_string(folder.join(format!("{stem}.txt"))).unwrap();
        assert_eq!(got.lines().count(), want.len(), "{stem}");
        for (line, (label, numbers)) in got.lines().zip(want) {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(classes[words[0].parse::<usize>().unwrap()], label, "{line}");
            let near = |(word, want): (&&str, &f64)| (word.parse::<f64>().unwrap() - want).abs() < 1e-6;
            assert!(words.len() == 5 && words[1..].iter().zip(&numbers).all(near), "{line}: {numbers:?}");
        }
    }
}

#[test]
fn inputs_are_never_overwritten() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("sub")).unwrap();
    for (from, to) in [("box_00.png", "a.png"), ("box_01.png", "a.boxes.png"), ("box_02.png", "sub/a.png")] {
        fs::copy(evaluation(from), path(to)).unwrap();
    }
    let before: Vec<Vec<u8>> =
        ["a.png", "a.boxes.png", "sub/a.png"].map(|n| fs::read(path(n)).unwrap()).into();
    let folder = text(dir.path());
    let ran = run(&[
        "annotate",
        &folder,
        "--prompt",
        "Locate the blue circle.",
        "--draw",
        &folder,
        "--yolo",
        &folder,
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let after: Vec<Vec<u8>> =
        ["a.png", "a.boxes.png", "sub/a.png"].map(|n| fs::read(path(n)).unwrap()).into();
    assert!(before == after);
    for name in ["a-2.boxes.png", "a-3.boxes.png", "a.boxes.boxes.png", "a.txt", "a-2.txt", "a.boxes.txt"] {
        assert!(path(name).is_file(), "{name}");
    }
    let image = text(&path("a.png"));
    let ran = run(&["annotate", &image, "--boxes", &image]);
    assert!(ran.code == 2 && ran.stderr.contains("--boxes would overwrite"), "{}", ran.stderr);
    let (yolo, classes) = (text(&path("y")), text(&path("y/classes.txt")));
    fs::create_dir(&yolo).unwrap();
    let ran = run(&["annotate", &image, "--yolo", &yolo, "--boxes", &classes]);
    assert!(ran.code == 2 && ran.stderr.contains("--yolo would overwrite"), "{}", ran.stderr);
    assert!(before[0] == fs::read(path("a.png")).unwrap());
    let out = text(&path("out.jsonl"));
    let ran = run(&["annotate", &image, "-o", &out, "--boxes", &text(&path("sub/../out.jsonl"))]);
    assert!(ran.code == 2 && ran.stderr.contains("--boxes would overwrite"), "{}", ran.stderr);
}

#[test]
fn what_cannot_be_written_is_said_and_the_answers_go_on() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = text(&dir.path().join("file"));
    fs::write(&file, "").unwrap();
    let draw = dir.path().join("draw");
    // Where the first picture should go is a folder.
    fs::create_dir_all(draw.join("box_00.boxes.png/x")).unwrap();
    let ran = run(&[
        "annotate",
        &evaluation("box_00.png"),
        &evaluation("box_03.png"),
        "--prompt",
        "Locate the blue circle.",
        "--format",
        "jsonl",
        "--draw",
        &text(&draw),
        "--boxes",
        "/dev/full",
        "--yolo",
        &format!("{file}/y"),
    ]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert_eq!(ran.rows().len(), 2);
    assert!(ran.rows().iter().all(|row| row["error"].is_null() && row["boxes"].is_array()));
    assert!(draw.join("box_03.boxes.png").is_file());
    for part in ["box_00.boxes.png: ", "file/y: ", "/dev/full: No space left on device"] {
        assert!(ran.stderr.contains(&part.to_string()), "{part} not in {}", ran.stderr);
    }
    assert_eq!(ran.stderr.matches("cannot write").count(), 3, "{}", ran.stderr);
    assert_eq!(fs::read_dir(&draw).unwrap().count(), 2, "nothing half is left");
}

#[test]
fn other_answers_have_no_boxes_unless_asked() {
    if !has_openvino() {
        return;
    }
    let image = evaluation("caption_00.png");
    let boxes = |flags: &[&str]| {
        let arguments =
            [&["annotate", &image, "--prompt", "Describe the image.", "--format", "jsonl"], flags];
        run(&arguments.concat()).rows()[0].get("boxes").cloned()
    };
    assert_eq!(boxes(&[]), None);
    assert_eq!(boxes(&["--box-forms", "any"]), Some(json!([])));
    let ask = |flags: &[&str]| {
        let image = evaluation("box_00.png");
        let arguments =
            [&["annotate", &image, "--prompt", "Locate the blue circle.", "--format", "jsonl"], flags];
        run(&arguments.concat()).rows().remove(0)
    };
    assert_eq!(ask(&["--box-forms", "off"]).get("boxes"), None);
    // Cut off in the box: reported.
    let row = ask(&["--max-new-tokens", "8"]);
    assert_eq!(
        (&row["boxes"], &row["malformed_boxes"][0]["reason"]),
        (&json!([]), &json!("cut off")),
        "{row}"
    );
}

#[test]
fn boxes_are_in_the_image_as_its_exif_data_turn_it() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = text(&qwen2vl_testkit::image("exif_6.png"));
    let (draw, coco) = (dir.path().join("draw"), dir.path().join("coco.json"));
    let [draw_dir, coco_file] = [&draw, &coco].map(|p| text(p));
    let ran = run(&[
        "annotate",
        &image,
        "--prompt",
        "Locate the blue circle.",
        "--draw",
        &draw_dir,
        "--boxes",
        &coco_file,
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let (stored_width, stored_height) = size_of(&image);
    let drawn = size_of(&text(&draw.join("exif_6.boxes.png")));
    assert!(stored_width != stored_height && drawn == (stored_height, stored_width));
    let coco: Value = serde_json::from_slice(&fs::read(&coco).unwrap()).unwrap();
    assert_eq!(coco["images"][0]["width"].as_f64(), Some(stored_height));
}
