//! Pages of PDFs: geometry, limits, and files that are none.

use qwen2vl_preprocess::{DecodeLimits, DecodeOptions, Error, is_pdf};
#[cfg(feature = "pdf")]
use qwen2vl_preprocess::{
    ImageSize, RgbImage, count_pdf_pages, decode_image, decode_pdf_page, read_pdf_page_size, read_size,
};

/// A page: its dictionary's further entries, and its content.
struct Page<'a> {
    entries: &'a str,
    content: &'a str,
}

/// A PDF of these pages and further objects, which are numbered from 100.
fn pdf(pages: &[Page<'_>], more: &[Vec<u8>]) -> Vec<u8> {
    let kids: Vec<String> = (0..pages.len()).map(|i| format!("{} 0 R", 10 + 2 * i)).collect();
    let tree = format!("<</Type/Pages/Kids[{}]/Count {}>>", kids.join(" "), pages.len());
    let mut objects = vec![(1, b"<</Type/Catalog/Pages 2 0 R>>".to_vec()), (2, tree.into_bytes())];
    for (i, page) in pages.iter().enumerate() {
        let (number, content) = (10 + 2 * i, 11 + 2 * i);
        let dict = format!("<</Type/Page/Parent 2 0 R/Contents {content} 0 R{}>>", page.entries);
        objects.push((number, dict.into_bytes()));
        objects.push((content, stream("", page.content.as_bytes())));
    }
    objects.extend(more.iter().enumerate().map(|(i, object)| (100 + i, object.clone())));
    let mut file = b"%PDF-1.7\n".to_vec();
    let mut table = String::new();
    for (number, object) in objects {
        table += &format!("{number} 1\n{:010} 00000 n \n", file.len());
        file.extend(format!("{number} 0 obj\n").bytes());
        file.extend(object);
        file.extend(b"\nendobj\n");
    }
    let start = file.len();
    file.extend(
        format!("xref\n0 1\n0000000000 65535 f \n{table}trailer\n<</Root 1 0 R/Size 200>>\n").bytes(),
    );
    file.extend(format!("startxref\n{start}\n%%EOF\n").bytes());
    file
}

fn stream(entries: &str, data: &[u8]) -> Vec<u8> {
    let mut object = format!("<</Length {}{entries}>>\nstream\n", data.len()).into_bytes();
    object.extend_from_slice(data);
    object.extend(b"\nendstream");
    object
}

const RED_CORNER: &str = "1 0 0 rg 0 0 36 36 re f";

/// One page of an inch by two, red in the lower left quarter inch squared.
fn one_page() -> Vec<u8> {
    pdf(&[Page { entries: "/MediaBox[0 0 72 144]", content: RED_CORNER }], &[])
}

#[test]
fn a_pdf_is_known_by_its_mark() {
    assert!(is_pdf(&one_page()));
    assert!(
        is_pdf(&[&[0; 1000][..], b"%PDF-1.4"].concat()) && !is_pdf(&[&[0; 1020][..], b"%PDF-1.4"].concat())
    );
}

#[cfg(not(feature = "pdf"))]
#[test]
fn without_the_feature_it_is_named() {
    let file = one_page();
    let options = DecodeOptions::default();
    let text = "this is a PDF file, which this build does not read; build it with the feature `pdf`: \
                cargo build --features pdf";
    for error in [
        qwen2vl_preprocess::decode_image(&file, &options).unwrap_err(),
        qwen2vl_preprocess::read_size(&file).unwrap_err(),
        qwen2vl_preprocess::count_pdf_pages(&file, &options).unwrap_err(),
        qwen2vl_preprocess::decode_pdf_page(&file, Some(1), &options).unwrap_err(),
    ] {
        assert_eq!(error.to_string(), text);
    }
    let limits = DecodeLimits { max_file_bytes: 10, ..Default::default() };
    let error = qwen2vl_preprocess::count_pdf_pages(&file, &DecodeOptions { limits, ..options }).unwrap_err();
    assert!(matches!(error, Error::FileTooLarge { limit: 10, .. }), "{error}");
}

#[cfg(feature = "pdf")]
fn pixel(image: &RgbImage, x: u32, y: u32) -> [u8; 3] {
    let at = (y * image.size().width + x) as usize * 3;
    std::array::from_fn(|i| image.as_raw()[at + i])
}

#[cfg(feature = "pdf")]
const RED: [u8; 3] = [255, 0, 0];
#[cfg(feature = "pdf")]
const WHITE: [u8; 3] = [255; 3];

#[cfg(feature = "pdf")]
#[test]
fn a_page_is_rendered_at_its_resolution() {
    let file = one_page();
    for (dpi, height, width) in [(150, 300, 150), (72, 144, 72), (36, 72, 36), (1, 2, 1), (600, 1200, 600)] {
        let options = DecodeOptions { pdf_dpi: dpi, ..Default::default() };
        let image = decode_pdf_page(&file, None, &options).unwrap();
        assert_eq!(image.size(), ImageSize { height, width }, "{dpi} dpi");
        assert_eq!(read_pdf_page_size(&file, Some(1), &options).unwrap(), image.size());
        if dpi > 1 {
            // Half an inch of red in the lower left, to the pixel.
            let half = dpi / 2;
            assert_eq!(pixel(&image, 0, height - 1), RED, "{dpi} dpi");
            assert_eq!(pixel(&image, half - 1, height - half), RED, "{dpi} dpi");
            for (x, y) in [(half, height - 1), (0, height - half - 1), (width - 1, 0)] {
                assert_eq!(pixel(&image, x, y), WHITE, "{dpi} dpi at {x}, {y}");
            }
        }
    }
    let image = decode_image(&file, &DecodeOptions::default()).unwrap();
    assert_eq!(
        (image.size(), count_pdf_pages(&file, &DecodeOptions::default()).unwrap()),
        (read_size(&file).unwrap(), 1)
    );
    for dpi in [0, 2401] {
        let options = DecodeOptions { pdf_dpi: dpi, ..Default::default() };
        let error = decode_pdf_page(&file, None, &options).unwrap_err().to_string();
        assert_eq!(error, format!("`pdf_dpi` is {dpi}, but must be from 1 to 2400"));
    }
}

#[cfg(feature = "pdf")]
#[test]
fn pages_are_turned_and_cut_as_they_say() {
    let page = |entries| pdf(&[Page { entries, content: RED_CORNER }], &[]);
    let options = DecodeOptions { pdf_dpi: 72, ..Default::default() };
    for (entries, [height, width], red) in [
        ("/MediaBox[0 0 72 144]", [144, 72], (0, 143)),
        ("/MediaBox[0 0 72 144]/Rotate 90", [72, 144], (0, 0)),
        ("/MediaBox[0 0 72 144]/Rotate 180", [144, 72], (71, 0)),
        ("/MediaBox[0 0 72 144]/Rotate 270", [72, 144], (143, 71)),
        ("/MediaBox[0 0 72 144]/CropBox[0 0 50 60]", [60, 50], (0, 59)),
        ("/MediaBox[-10 -20 62 124]", [144, 72], (10, 123)),
    ] {
        let image = decode_image(&page(entries), &options).unwrap();
        assert_eq!(image.size(), ImageSize { height, width }, "{entries}");
        assert_eq!(pixel(&image, red.0, red.1), RED, "{entries}");
        let n_red = image.as_raw().as_chunks::<3>().0.iter().filter(|p| **p == RED).count();
        assert_eq!(n_red, 36 * 36, "{entries}");
    }
    // Sides are rounded.
    let size = read_size(&page("/MediaBox[0 0 595.28 841.89]")).unwrap();
    assert_eq!(size, ImageSize { height: 1754, width: 1240 });
}

#[cfg(feature = "pdf")]
#[test]
fn text_in_a_standard_font_is_drawn() {
    let font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>".to_vec();
    let entries = "/MediaBox[0 0 200 50]/Resources<</Font<</F 100 0 R>>>>";
    let content = "BT /F 24 Tf 10 15 Td (Invoice 42) Tj ET";
    let image = decode_image(&pdf(&[Page { entries, content }], &[font]), &DecodeOptions::default()).unwrap();
    let dark = image.as_raw().as_chunks::<3>().0.iter().filter(|p| p[0] < 100).count();
    assert!((800..6000).contains(&dark), "{dark} dark pixels of {}", image.size());
}

#[cfg(feature = "pdf")]
#[test]
fn pages_are_named_and_counted() {
    let content = ["1 0 0 rg", "0 1 0 rg", "0 0 1 rg"].map(|color| format!("{color} 0 0 9 9 re f"));
    let pages: Vec<_> =
        content.iter().map(|content| Page { entries: "/MediaBox[0 0 9 9]", content }).collect();
    let file = pdf(&pages, &[]);
    let options = DecodeOptions::default();
    assert_eq!(count_pdf_pages(&file, &options).unwrap(), 3);
    for (page, color) in [(1, [255, 0, 0]), (2, [0, 255, 0]), (3, [0, 0, 255])] {
        let image = decode_pdf_page(&file, Some(page), &options).unwrap();
        assert_eq!(pixel(&image, 5, 5), color, "page {page}");
    }
    for (page, want) in [
        (Some(0), "there is no page 0: the PDF has pages 1 to 3"),
        (Some(4), "there is no page 4: the PDF has pages 1 to 3"),
        (None, "the PDF has 3 pages; name one of them, as in file.pdf#page=1"),
    ] {
        assert_eq!(decode_pdf_page(&file, page, &options).unwrap_err().to_string(), want);
        assert_eq!(read_pdf_page_size(&file, page, &options).unwrap_err().to_string(), want);
    }
    assert!(matches!(decode_image(&file, &options), Err(Error::PdfPages { n_pages: 3 })));
}

#[cfg(feature = "pdf")]
#[test]
fn pages_and_images_over_the_limits() {
    let options = DecodeOptions::default();
    // 200 inches a side, the largest that PDF allows, are 900 million pixels at 150 dpi.
    let large = pdf(&[Page { entries: "/MediaBox[0 0 14400 14400]", content: RED_CORNER }], &[]);
    let size = read_pdf_page_size(&large, None, &options).unwrap();
    assert!(size.pixels() <= 51_380_224 && size.pixels() > 51_000_000, "{size}");
    let limits = DecodeLimits { max_pixels: 10_000, ..Default::default() };
    let image = decode_pdf_page(&large, None, &DecodeOptions { limits, ..options }).unwrap();
    assert_eq!(image.size(), ImageSize { height: 100, width: 100 });
    let limits = DecodeLimits { max_alloc_bytes: 1 << 20, ..Default::default() };
    let error = decode_pdf_page(&large, None, &DecodeOptions { limits, ..options }).unwrap_err();
    assert!(matches!(error, Error::MemoryLimit { .. }), "{error}");
    // A strip of a page stays an image.
    let strip = pdf(&[Page { entries: "/MediaBox[0 0 14400 1]", content: RED_CORNER }], &[]);
    assert_eq!(read_pdf_page_size(&strip, None, &options).unwrap(), ImageSize { height: 2, width: 30_000 });

    let image = stream(
        "/Type/XObject/Subtype/Image/Width 60000/Height 60000/ColorSpace/DeviceRGB/BitsPerComponent 8",
        b"\0\0\0",
    );
    let entries = "/MediaBox[0 0 72 72]/Resources<</XObject<</I 100 0 R>>>>";
    let bomb = pdf(&[Page { entries, content: "72 0 0 72 0 0 cm /I Do" }], &[image]);
    let error = decode_pdf_page(&bomb, None, &options).unwrap_err();
    assert!(matches!(error, Error::TooManyPixels { pixels: 3_600_000_000, .. }), "{error}");
}

#[cfg(feature = "pdf")]
#[test]
fn what_is_broken_is_an_error() {
    let options = DecodeOptions::default();
    let no_pages = pdf(&[], &[]);
    for (file, want) in [
        (&no_pages[..], "no pages"),
        (b"%PDF-1.7 something", "no pages can be found"),
        (b"%PDF-", "no pages can be found"),
        (b"nothing", "it is no PDF"),
    ] {
        let error = count_pdf_pages(file, &options).unwrap_err();
        assert!(matches!(error, Error::Corrupt { format: "PDF", .. }), "{error}");
        assert!(error.to_string().contains(want), "{error}");
    }
    // Without its table, the objects are looked for.
    let file = one_page();
    let table = file.windows(4).position(|w| w == b"xref").unwrap();
    assert_eq!(decode_image(&file[..table], &options).unwrap().size().height, 300);
}

#[cfg(feature = "pdf")]
#[test]
fn encrypted_files_are_refused_as_such() {
    let encrypted = |dict: &str| {
        let file = String::from_utf8(one_page()).unwrap();
        file.replace("/Size 200", &format!("/Size 200/ID[<00><00>]/Encrypt<<{dict}>>")).into_bytes()
    };
    let key = "00".repeat(32);
    let file = encrypted(&format!("/Filter/Standard/V 1/R 2/P -4/O<{key}>/U<{key}>"));
    let error = decode_image(&file, &DecodeOptions::default()).unwrap_err();
    assert!(matches!(error, Error::PdfPassword), "{error}");
    let file = encrypted(&format!("/Filter/Standard/V 99/R 99/P -4/O<{key}>/U<{key}>"));
    let error = decode_image(&file, &DecodeOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Unsupported { format: "PDF", .. } | Error::Corrupt { .. }), "{error}");
}

/// Forms within forms, and one within itself, end.
#[cfg(feature = "pdf")]
#[test]
fn what_contains_itself_ends() {
    let form = stream(
        "/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</F 100 0 R>>>>",
        b"1 0 0 rg 0 0 9 9 re f /F Do",
    );
    let entries = "/MediaBox[0 0 9 9]/Resources<</XObject<</F 100 0 R>>>>";
    let file = pdf(&[Page { entries, content: "/F Do" }], &[form]);
    let image = decode_image(&file, &DecodeOptions::default()).unwrap();
    assert_eq!(pixel(&image, 3, 3), RED);
}

#[cfg(feature = "pdf")]
mod mutated {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn files_never_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        ) {
            let font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>".to_vec();
            let entries = "/MediaBox[0 0 90 90]/Resources<</Font<</F 100 0 R>>>>";
            let content = "q 1 0 0 RG 2 w 10 10 m 50 60 l 70 20 30 40 50 50 c S Q BT /F 9 Tf 5 5 Td (abc) Tj ET";
            let mut file = pdf(&[Page { entries, content }], &[font]);
            let len = file.len();
            for (at, value) in changes {
                file[at.index(len)] = value;
            }
            if let Some(cut) = cut {
                file.truncate(cut.index(len));
            }
            let limits = DecodeLimits { max_pixels: 40_000, ..Default::default() };
            let options = DecodeOptions { limits, ..Default::default() };
            if let Ok(image) = decode_pdf_page(&file, Some(1), &options) {
                prop_assert!(image.size().pixels() <= limits.max_pixels);
                prop_assert_eq!(read_pdf_page_size(&file, Some(1), &options).ok(), Some(image.size()));
            }
        }
    }
}

/// Forty lines that draw 2^40 squares: each draws the next one twice.
#[cfg(feature = "pdf")]
#[test]
fn what_multiplies_is_refused_before_it_is_drawn() {
    let form = |next: usize| {
        let entries =
            format!("/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</F {next} 0 R>>>>");
        stream(&entries, b"0 0 1 1 re f /F Do /F Do")
    };
    let pattern = |next: usize| {
        let entries = format!(
            "/Type/Pattern/PatternType 1/PaintType 1/TilingType 1/BBox[0 0 4 4]/XStep 4/YStep 4\
             /Resources<</Pattern<</P {next} 0 R>>>>"
        );
        stream(&entries, b"/Pattern cs /P scn 0 0 2 2 re f 2 2 2 2 re f")
    };
    let mask = |next: usize| {
        let group = format!(
            "/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Group<</S/Transparency/CS/DeviceGray>>\
             /Resources<</ExtGState<</G<</SMask<</S/Luminosity/G {next} 0 R>>>>>>>>"
        );
        stream(&group, b"/G gs 0 0 2 2 re f 2 2 2 2 re f")
    };
    let chain = |one: &dyn Fn(usize) -> Vec<u8>| (0..40).map(|i| one(101 + i)).collect::<Vec<_>>();
    for (resources, content, objects) in [
        ("/XObject<</F 100 0 R>>", "/F Do", chain(&form)),
        ("/Pattern<</P 100 0 R>>", "/Pattern cs /P scn 0 0 9 9 re f", chain(&pattern)),
        ("/ExtGState<</G<</SMask<</S/Luminosity/G 100 0 R>>>>>>", "/G gs 0 0 9 9 re f", chain(&mask)),
    ] {
        let entries = format!("/MediaBox[0 0 9 9]/Resources<<{resources}>>");
        let file = pdf(&[Page { entries: &entries, content }], &objects);
        let error = decode_image(&file, &DecodeOptions::default()).expect_err(resources);
        assert!(matches!(error, Error::PdfTooComplex { .. }), "{resources}: {error}");
    }
}
