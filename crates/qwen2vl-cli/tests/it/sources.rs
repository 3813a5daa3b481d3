//! Images from PDFs, data URLs and animations.

use std::path::Path;

use serde_json::json;

use crate::{evaluation, run, text};

/// A PDF whose pages are squares of half an inch, the first an inch wide.
fn write_pdf(path: &Path, n_pages: usize) {
    let kids: Vec<String> = (0..n_pages).map(|i| format!("{} 0 R", 3 + i)).collect();
    let mut file = format!(
        "%PDF-1.7\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n2 0 obj\n<</Type/Pages/Count {n_pages}/Kids[{}]>>\nendobj\n",
        kids.join(" ")
    );
    for i in 0..n_pages {
        let width = if i == 0 { 72 } else { 36 };
        file += &format!("{} 0 obj\n<</Type/Page/Parent 2 0 R/MediaBox[0 0 {width} 36]>>\nendobj\n", 3 + i);
    }
    file += "trailer\n<</Root 1 0 R>>\n%%EOF\n";
    std::fs::write(path, file).unwrap();
}

fn base64(bytes: &[u8]) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let value = group.iter().enumerate().fold(0_u32, |v, (i, b)| v | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            let digit = alphabet[(value >> (18 - 6 * i)) as usize & 63];
            out.push(if i <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(feature = "pdf")]
#[test]
fn each_page_of_a_pdf_is_an_image_at_the_resolution_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("doc.pdf");
    write_pdf(&path, 3);
    let pdf = text(&path);
    let ran = run(&["inspect", &pdf]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let images = ran.rows()[0]["images"].as_array().unwrap().clone();
    let named: Vec<_> = images.iter().map(|i| (i["path"].clone(), i["size"].clone())).collect();
    let page = |page: u32, size: [u32; 2]| (json!(format!("{pdf}#page={page}")), json!(size));
    assert_eq!(named, [page(1, [75, 150]), page(2, [75, 75]), page(3, [75, 75])]);

    let ran = run(&["inspect", &format!("{pdf}#pages=2-,1"), "--pdf-dpi", "72"]);
    let images = ran.rows()[0]["images"].as_array().unwrap().clone();
    let sizes: Vec<_> = images.iter().map(|i| i["size"].clone()).collect();
    assert_eq!(sizes, [json!([36, 36]), json!([36, 36]), json!([36, 72])]);
    let ran = run(&["inspect", &format!("{pdf}#page=2")]);
    assert_eq!(ran.rows()[0]["images"][0]["path"], format!("{pdf}#page=2"));

    // In a folder, it is among the images.
    let table = dir.path().join("t.jsonl");
    std::fs::write(&table, json!({ "image": "doc.pdf#page=3" }).to_string()).unwrap();
    let ran = run(&["inspect", &text(&table)]);
    assert_eq!(ran.rows()[0]["images"][0]["size"], json!([75, 75]), "{}", ran.stderr);
    std::fs::remove_file(&table).unwrap();
    let ran = run(&["inspect", &text(dir.path())]);
    assert_eq!(ran.rows()[0]["images"].as_array().unwrap().len(), 3);
}

#[cfg(feature = "pdf")]
#[test]
fn what_is_wrong_with_a_pdf_is_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("doc.pdf");
    write_pdf(&path, 2);
    let pdf = text(&path);
    let broken = dir.path().join("broken.pdf");
    std::fs::write(&broken, "%PDF-1.7 nothing").unwrap();
    for (argument, want) in [
        (format!("{pdf}#page=3"), "there is no page 3: the PDF has pages 1 to 2"),
        (format!("{pdf}#pages=1-5"), "there is no page 5: the PDF has pages 1 to 2"),
        (format!("{pdf}#pages=x"), "no range of pages"),
        (text(&broken), "no pages can be found in it"),
        (text(&dir.path().join("missing.pdf")), "No such file"),
        (text(&dir.path().join("missing.pdf#page=1")), "No such file"),
    ] {
        let ran = run(&["inspect", &argument]);
        assert_eq!(ran.code, 2, "{argument}: {}", ran.stderr);
        let named = ran.stderr.matches(argument.as_str()).count();
        assert!(ran.stderr.contains(want) && named <= 1, "{argument}: {}", ran.stderr);
    }
    let ran = run(&["inspect", &pdf, "--pdf-dpi", "0"]);
    assert!(ran.code == 2 && ran.stderr.contains("--pdf-dpi"), "{}", ran.stderr);
}

#[cfg(not(feature = "pdf"))]
#[test]
fn without_the_feature_a_pdf_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("doc.pdf");
    write_pdf(&path, 2);
    let ran = run(&["inspect", &text(&path)]);
    assert!(ran.code == 2 && ran.stderr.contains("--features pdf"), "{}", ran.stderr);
}

#[test]
fn a_data_url_is_an_image_and_never_shown_in_full() {
    let image = evaluation("caption_00.png");
    let bytes = std::fs::read(&image).unwrap();
    let url = format!("data:image/png;base64,{}", base64(&bytes));
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("t.jsonl");
    let damaged = url.replacen("AA", "*A", 1);
    std::fs::write(&table, format!("{}\n{}\n", json!({ "image": url }), json!({ "image": damaged })))
        .unwrap();
    let ran = run(&["inspect", &text(&table)]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let want = run(&["inspect", &image]);
    let (got, want) = (&ran.rows()[0], &want.rows()[0]);
    assert_eq!(
        (&got["images"][0]["size"], &got["input_ids"]),
        (&want["images"][0]["size"], &want["input_ids"])
    );
    assert!(ran.stderr.contains("not base64: '*' at character") && ran.stderr.len() < 1000, "{}", ran.stderr);
    assert!(got["images"][0]["path"].as_str().unwrap().len() < 200);

    let messages = dir.path().join("m.json");
    let part = json!({ "type": "image_url", "image_url": { "url": url } });
    std::fs::write(&messages, json!([{ "role": "user", "content": [part] }]).to_string()).unwrap();
    let ran = run(&["inspect", "--messages", &text(&messages)]);
    assert_eq!(&ran.rows()[0]["images"][0]["size"], &want["images"][0]["size"], "{}", ran.stderr);
}

#[test]
fn an_animation_is_its_first_frame_and_says_so() {
    let ran = run(&["inspect", &text(&qwen2vl_testkit::image("animated.gif"))]);
    let shown = &ran.rows()[0]["images"][0];
    assert_eq!(
        (&shown["frames"], &shown["fps"], &shown["size"]),
        (&json!(3), &json!(12.5), &json!([40, 60]))
    );
    let ran = run(&["inspect", &evaluation("caption_00.png")]);
    assert!(ran.rows()[0]["images"][0].get("frames").is_none());
}
