//! `qwen2vl chat`, driven by lines as a program writes them.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};

use crate::{Ran, evaluation, finished, has_openvino, qwen2vl, text};

const STAR: &str = "A purple star left of an orange triangle.";
const TRIANGLE: &str = "A green triangle left of a blue cross.";

fn start(arguments: &[&str]) -> Child {
    let mut command = qwen2vl(&[&["chat"], arguments].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn chat(arguments: &[&str], lines: &[&str]) -> Ran {
    let mut child = start(arguments);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
    drop(stdin);
    finished(&child.wait_with_output().unwrap())
}

#[test]
fn turns_answer_what_annotate_answers() {
    if !has_openvino() {
        return;
    }
    let image = format!("/image {}", evaluation("caption_01.png"));
    let ask = "Describe the image.";
    let ran = chat(&[&evaluation("caption_00.png")], &[ask, "", "/reset", &image, ask, "/quit", ask]);
    assert_eq!((ran.code, ran.stdout), (0, format!("{STAR}\n{TRIANGLE}\n")), "{}", ran.stderr);
    assert!(ran.stderr.contains("goes with the next question") && ran.stderr.contains("forgotten"));
}

#[test]
fn what_goes_wrong_costs_its_line_alone() {
    if !has_openvino() {
        return;
    }
    let image = format!("/image '{}'", evaluation("caption_00.png"));
    let ran = chat(&[], &["/image nowhere.png", "/imgae x", &image, "Describe the image."]);
    assert_eq!((ran.code, ran.stdout), (1, format!("{STAR}\n")), "{}", ran.stderr);
    for part in ["nowhere.png", "did you mean /image"] {
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    }
    let ran = chat(&["nowhere.png"], &["Hello"]);
    assert!(ran.code == 2 && ran.stdout.is_empty() && ran.stderr.contains("nowhere.png"), "{}", ran.stderr);
    let ran = chat(&["--top-p", "2"], &["Hello"]);
    assert!(ran.code == 2 && ran.stderr.contains("top_p is 2"), "{}", ran.stderr);
}

#[test]
fn a_saved_conversation_is_one_that_annotate_reads() {
    if !has_openvino() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let saved = text(&dir.path().join("talk.json"));
    let image = evaluation("caption_00.png");
    let ask = "Describe the image.";
    let ran = chat(&[&image, "--system", "Look."], &[ask, &format!("/save {saved}"), "/save /no/such/dir/x"]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let messages: serde_json::Value = serde_json::from_slice(&std::fs::read(&saved).unwrap()).unwrap();
    assert_eq!(messages[0]["content"], "Look.");
    assert_eq!(messages[1]["content"][0]["image"], image);
    assert_eq!(messages[2]["content"].as_str().unwrap(), ran.stdout.trim_end());

    let question: Vec<_> = messages.as_array().unwrap()[..2].to_vec();
    std::fs::write(&saved, serde_json::to_vec(&question).unwrap()).unwrap();
    let again = crate::run(&["annotate", "--messages", &saved]);
    assert_eq!(again.stdout, ran.stdout);
}

#[cfg(unix)]
#[test]
fn an_interrupt_stops_the_answer_and_keeps_the_conversation() {
    if !has_openvino() {
        return;
    }
    let interrupt = |child: &Child| {
        let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
    };
    let long = ["--min-new-tokens", "20000", "--max-new-tokens", "20000"];
    let mut child = start(&[&[evaluation("caption_00.png").as_str()], &long[..]].concat());
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    writeln!(stdin, "Describe the image.").unwrap();
    let mut first = [0; 9];
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"A purple ");
    interrupt(&child);
    let mut line = String::new();
    while !line.contains("stopped") {
        assert!(stderr.read_line(&mut line).unwrap() > 0, "{line}");
    }
    writeln!(stdin, "/save /dev/stdout").unwrap();
    let mut rest = String::new();
    while !rest.ends_with("\n]\n") {
        assert!(stdout.read_line(&mut rest).unwrap() > 0, "{rest}");
    }
    let (answer, saved) = rest.split_once("\n[").unwrap();
    let messages: serde_json::Value = serde_json::from_str(&format!("[{saved}")).unwrap();
    let said = messages[1]["content"].as_str().unwrap();
    assert_eq!(said, format!("A purple {answer}"));

    // With nothing to stop it ends; it may still be busy with the line before.
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        interrupt(&child);
        std::thread::yield_now();
    };
    assert_eq!(status.code(), Some(130));
}
