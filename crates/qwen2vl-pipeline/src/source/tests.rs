//! Every spelling of a source, and what is wrong with one.

use proptest::prelude::*;

use super::*;

/// A PNG of one pixel.
const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC";

fn decode(source: &str) -> Result<RgbImage, Error> {
    let input = parse(source);
    let options = DecodeOptions::default();
    let wrap = |source| Error::Image { input: input_name(&input, "image", 0), source };
    let loaded = Loaded::open(&input, &options)?;
    let image = loaded.decode(&options).map_err(wrap)?.into_owned();
    assert_eq!(loaded.size(&options).map_err(wrap)?, image.size());
    Ok(image)
}

#[test]
fn texts_are_paths_pages_and_urls() {
    let path = |path: &str| (Some(PathBuf::from(path)), None);
    let page = |path: &str, page| (Some(PathBuf::from(path)), Some(page));
    for (text, want) in [
        ("a.png", path("a.png")),
        ("odd:name.png", path("odd:name.png")),
        ("C:\\a.png", path("C:\\a.png")),
        ("a#page=3.png", path("a#page=3.png")),
        ("a.png#page=3", path("a.png#page=3")),
        ("a.pdf", path("a.pdf")),
        ("d/a.PDF#page=12", page("d/a.PDF", 12)),
        ("a.pdf#page=x", path("a.pdf#page=x")),
        ("日.pdf#page=1", page("日.pdf", 1)),
        ("日#page=1", path("日#page=1")),
        ("file:///d/a%20b%25.png", path("/d/a b%.png")),
        ("file://localhost/d/a.png", path("/d/a.png")),
        ("file:/d/a.png", path("/d/a.png")),
        ("FILE:///d/a.pdf#page=2", page("/d/a.pdf", 2)),
        ("file://a.png", path("a.png")),
        ("file:///d/100%.png", path("/d/100%.png")),
        ("file:///d/%ff.png", path("/d/%ff.png")),
        ("file:///d/%E6%97%A5.png", path("/d/日.png")),
    ] {
        let input = parse(text);
        let found = match &input {
            ImageInput::PdfPage { page, .. } => Some(*page),
            _ => None,
        };
        assert_eq!((input.file().map(Path::to_owned), found), want, "{text}");
    }
    for text in ["data:,x", "DATA:image/png;base64,", "http://h/a.png", "https://h", "s3://b/k", "gs://b"] {
        assert!(matches!(parse(text), ImageInput::Url(url) if url == text), "{text}");
    }
}

#[test]
fn data_urls_are_read_in_every_spelling() {
    let plain = decode(&format!("data:image/png;base64,{PNG}")).unwrap();
    assert_eq!((plain.size().to_string(), plain.as_raw()), ("1x1".to_owned(), &[255, 0, 0][..]));
    let escaped = PNG.replace('+', "%2B").replace('/', "%2f").replace('=', "%3D");
    let (line, rest) = PNG.split_at(40);
    let bytes: String = BASE64.decode(PNG).unwrap().iter().map(|b| format!("%{b:02x}")).collect();
    for url in [
        format!("data:;base64,{PNG}"),
        format!("data:image;base64,{PNG}"),
        format!("DATA:IMAGE/PNG;charset=utf-8;BASE64,{PNG}"),
        format!("data:image/png; base64,{PNG}"),
        format!("data:image/jpeg;base64,{PNG}"),
        format!("data:application/octet-stream;base64,{PNG}#fragment"),
        format!("data:image/png;base64,{escaped}"),
        format!("data:image/png;base64,{line}\r\n {rest}\n"),
        format!("data:image/png,{bytes}"),
    ] {
        assert_eq!(decode(&url).unwrap(), plain, "{url}");
    }
}

#[test]
fn what_is_wrong_with_a_url_is_named() {
    for (url, want) in [
        ("data:image/png;base64", "needs a comma"),
        ("data:image/png;base64,", "holds no data"),
        ("data:image/png;base64,iVB*", "'*' at character 3 of 4"),
        ("data:image/png;base64,iVBOR", "not base64"),
        ("data:image/png;base64,_-8=", "'_' at character 0"),
        ("data:text/html,<p>", "text/html: that is no image"),
        ("data:image/svg+xml,<svg/>", "SVG is not read"),
        ("data:video/mp4;base64,AAAA", "give it as a video"),
        ("data:image/png;base64,AAAA", "not an image: the file starts with 00 00 00"),
        ("http://example.com/a.png", "download it first"),
        ("s3://bucket/a.png", "download it first"),
    ] {
        let error = decode(url).unwrap_err();
        assert!(error.to_string().contains(want) && error.to_string().contains(url), "{url}: {error}");
    }
}

#[test]
fn the_limit_is_checked_before_anything_is_decoded() {
    let limits = qwen2vl_preprocess::DecodeLimits { max_file_bytes: 300, ..Default::default() };
    let options = DecodeOptions { limits, ..Default::default() };
    // Not base64, which would be found on decoding.
    for (body, refused) in [("*".repeat(404), true), ("*".repeat(403), false)] {
        let input = parse(&format!("data:image/png;base64,{body}"));
        let error = Loaded::open(&input, &options).err().unwrap();
        assert_eq!(error.to_string().contains("max_file_bytes"), refused, "{error}");
    }
    let file = std::env::current_exe().unwrap();
    let error = Loaded::open(&ImageInput::from(file.as_path()), &options).err().unwrap();
    assert!(error.to_string().contains("more than the limit of 300"), "{error}");
}

#[test]
fn no_message_and_no_name_holds_an_image() {
    let large = PNG.repeat(10_000);
    for source in [format!("data:image/png;base64,{large}*"), large.clone(), format!("http://h/{large}")] {
        let error = decode(&source).unwrap_err().to_string();
        assert!(error.len() < 500 && error.contains("characters)"), "{error}");
        assert!(parse(&source).name().unwrap().len() < 200);
    }
    assert_eq!(parse("a.pdf#page=3").name().as_deref(), Some("a.pdf#page=3"));
    assert_eq!(ImageInput::from(vec![0]).name(), None);
    let media_type = format!("data:{},x", "a".repeat(100_000));
    assert!(decode(&media_type).unwrap_err().to_string().len() < 800);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_with_a_short_message(
        head in prop::sample::select(vec!["", "data:", "data:image/png;base64,", "file://", "data:,", "http://", "x.pdf#page="]),
        tail in "\\PC{0,60}",
        repeat in 1_usize..40,
    ) {
        let input = parse(&format!("{head}{}", tail.repeat(repeat)));
        let error = Loaded::open(&input, &DecodeOptions::default())
            .and_then(|loaded| {
                loaded.decode(&DecodeOptions::default()).map_err(|source| Error::Image { input: "image".into(), source })
            })
            .err();
        if let Some(Error::Source { input, .. }) = error {
            prop_assert!(input.chars().count() <= MAX_NAME_CHARS);
        }
    }

    #[test]
    fn bytes_come_back_from_their_data_url(bytes in prop::collection::vec(any::<u8>(), 1..200), lines in 1_usize..90) {
        let text = BASE64.encode(&bytes);
        let broken: Vec<&str> = text.as_bytes().chunks(lines).map(|l| std::str::from_utf8(l).unwrap()).collect();
        let (read, _) = read_url(&format!("data:image/png;base64,{}", broken.join("\n")), u64::MAX).unwrap();
        prop_assert_eq!(&read, &bytes);
        let escaped: String = bytes.iter().map(|b| format!("%{b:02X}")).collect();
        let (read, _) = read_url(&format!("data:,{escaped}"), u64::MAX).unwrap();
        prop_assert_eq!(&read, &bytes);
    }
}
