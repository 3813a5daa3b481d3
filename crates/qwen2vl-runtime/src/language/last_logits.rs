//! Rewrites a language model's IR so that it computes logits of the last position only.
//!
//! Exports, optimum-intel's and those for Spark NLP alike, compute logits of every prompt position: for a 1080p image
//! 2,700 rows of 151,936 floats (1.6 GB), and a sixth of the prefill's arithmetic, all but one row thrown away.
//! OpenVINO's C API has no graph passes, but an IR is XML: a `Gather` of position -1 is put between the last hidden
//! states and the output projection. Its two constants use the bytes of constants that the weights file has already
//! (an i64 1 for the axis, an i64 -1 for the position), so the weights stay as they are and stay memory-mapped.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use roxmltree::{Document, Node};

/// The most element type conversions between projection and result; exports have none or one.
const MAX_CONVERSIONS: usize = 4;

/// The adapted IR, or why this IR has not the shape that can be adapted.
pub(super) fn last_logits_only(xml: &str, weights: &Path) -> Result<String, String> {
    let document = Document::parse(xml).map_err(|e| e.to_string())?;
    let net = document.root_element();
    let layers = child(net, "layers")?;
    let edges = child(net, "edges")?;

    let projection = projection(layers, edges)?;
    let hidden = source(edges, projection, "0")?;

    let one = constant(layers, weights, 1)?.ok_or("no i64 constant 1 in the weights")?;
    let last = constant(layers, weights, -1)?.ok_or("no i64 constant -1 in the weights")?;
    let next_id =
        layers.children().filter_map(|l| l.attribute("id")?.parse::<u64>().ok()).max().unwrap_or(0) + 1;
    let (position, axis, gather) = (next_id, next_id + 1, next_id + 2);

    let new_layers = format!(
        r#"{}{}<layer id="{gather}" name="qwen2vl/last_hidden_state" type="Gather" version="opset8">
<data batch_dims="0" /><input>{}{}{}</input><output>{}</output></layer>"#,
        const_layer(position, "qwen2vl/last_position", "1", last),
        const_layer(axis, "qwen2vl/sequence_axis", "", one),
        port(0, "FP32", &[-1, -1, -1]),
        port(1, "I64", &[1]),
        port(2, "I64", &[]),
        port(3, "FP32", &[-1, 1, -1]),
    );
    let edge = |from: &str, from_port: &str, to: &str, to_port: u8| {
        format!(r#"<edge from-layer="{from}" from-port="{from_port}" to-layer="{to}" to-port="{to_port}" />"#)
    };
    let (gather, position, axis) = (gather.to_string(), position.to_string(), axis.to_string());
    let new_edges = [
        edge(attribute(hidden, "from-layer")?, attribute(hidden, "from-port")?, &gather, 0),
        edge(&position, "0", &gather, 1),
        edge(&axis, "0", &gather, 2),
        edge(&gather, "3", projection, 0),
    ]
    .concat();

    let end_of_layers = layers.range().end - "</layers>".len();
    let old_edge = hidden.range();
    // The edges follow the layers in every IR; the text between the two cuts is copied as it is.
    if !xml[end_of_layers..].starts_with("</layers>") || old_edge.start < end_of_layers {
        return Err("the edges do not follow the layers".to_owned());
    }
    Ok([
        &xml[..end_of_layers],
        &new_layers,
        &xml[end_of_layers..old_edge.start],
        &new_edges,
        &xml[old_edge.end..],
    ]
    .concat())
}

/// The layer that makes logits of hidden states.
fn projection<'a>(layers: Node<'a, '_>, edges: Node<'a, '_>) -> Result<&'a str, String> {
    let results: Vec<_> = layers.children().filter(|l| l.attribute("type") == Some("Result")).collect();
    // Older versions of OpenVINO write no names of results.
    let result = match results.as_slice() {
        [only] => only,
        several => several
            .iter()
            .find(|l| l.attribute("output_names") == Some("logits"))
            .ok_or_else(|| format!("{} results, none named logits", several.len()))?,
    };
    let before = |layer| attribute(source(edges, layer, "0")?, "from-layer");
    let mut id = before(attribute(*result, "id")?)?;
    for _ in 0..MAX_CONVERSIONS {
        let layer = layers.children().find(|l| l.attribute("id") == Some(id)).ok_or("no such layer")?;
        match layer.attribute("type") {
            Some("MatMul") => return Ok(id),
            Some("Convert") => id = before(id)?,
            other => return Err(format!("logits come from {other:?}, not from a MatMul")),
        }
    }
    Err("logits come from conversions alone".to_owned())
}

fn child<'a, 'd>(node: Node<'a, 'd>, name: &str) -> Result<Node<'a, 'd>, String> {
    node.children().find(|n| n.has_tag_name(name)).ok_or_else(|| format!("no <{name}>"))
}

fn attribute<'a>(node: Node<'a, '_>, name: &str) -> Result<&'a str, String> {
    node.attribute(name).ok_or_else(|| format!("no attribute {name}"))
}

/// The edge that ends at a layer's port.
fn source<'a, 'd>(edges: Node<'a, 'd>, layer: &str, port: &str) -> Result<Node<'a, 'd>, String> {
    edges
        .children()
        .find(|e| e.attribute("to-layer") == Some(layer) && e.attribute("to-port") == Some(port))
        .ok_or_else(|| format!("nothing leads to port {port} of layer {layer}"))
}

/// Offset in the weights of an i64 constant with this value.
fn constant(layers: Node<'_, '_>, weights: &Path, value: i64) -> Result<Option<u64>, String> {
    let mut file = File::open(weights).map_err(|e| e.to_string())?;
    for layer in layers.children().filter(|l| l.attribute("type") == Some("Const")) {
        let Some(data) = layer.children().find(|c| c.has_tag_name("data")) else {
            continue;
        };
        if data.attribute("element_type") != Some("i64") || data.attribute("size") != Some("8") {
            continue;
        }
        let Some(offset) = data.attribute("offset").and_then(|o| o.parse().ok()) else {
            continue;
        };
        let mut bytes = [0; 8];
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|e| e.to_string())?;
        if i64::from_le_bytes(bytes) == value {
            return Ok(Some(offset));
        }
    }
    Ok(None)
}

fn const_layer(id: u64, name: &str, shape: &str, offset: u64) -> String {
    let dims: &[i64] = if shape.is_empty() { &[] } else { &[1] };
    format!(
        r#"<layer id="{id}" name="{name}" type="Const" version="opset1">
<data element_type="i64" shape="{shape}" offset="{offset}" size="8" /><output>{}</output></layer>
"#,
        port(0, "I64", dims)
    )
}

fn port(id: u8, precision: &str, dims: &[i64]) -> String {
    let dims: String = dims.iter().map(|d| format!("<dim>{d}</dim>")).collect();
    format!(r#"<port id="{id}" precision="{precision}">{dims}</port>"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = r#"<?xml version="1.0"?>
<net name="Model0" version="11"><layers>
<layer id="0" name="h" type="Parameter" version="opset1"><output><port id="0" /></output></layer>
<layer id="1" name="one" type="Const" version="opset1"><data element_type="i64" shape="1" offset="0" size="8" /></layer>
<layer id="2" name="last" type="Const" version="opset1"><data element_type="i64" shape="" offset="8" size="8" /></layer>
<layer id="3" name="lm_head" type="MatMul" version="opset1" />
<layer id="4" name="r" type="Result" version="opset1" output_names="logits" />
</layers><edges>
<edge from-layer="0" from-port="0" to-layer="3" to-port="0" />
<edge from-layer="2" from-port="0" to-layer="3" to-port="1" />
<edge from-layer="3" from-port="2" to-layer="4" to-port="0" />
</edges></net>"#;

    fn adapt(xml: &str, constants: &[i64]) -> Result<String, String> {
        let name = format!("qwen2vl-last-logits-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name);
        let bytes: Vec<u8> = constants.iter().flat_map(|c| c.to_le_bytes()).collect();
        std::fs::write(&path, bytes).unwrap();
        let result = last_logits_only(xml, &path);
        std::fs::remove_file(&path).unwrap();
        result
    }

    #[test]
    fn a_gather_of_the_last_position_feeds_the_projection() {
        let adapted = adapt(XML, &[1, -1]).unwrap();
        let document = Document::parse(&adapted).unwrap();
        let edges: Vec<[&str; 4]> = document
            .descendants()
            .filter(|n| n.has_tag_name("edge"))
            .map(|n| ["from-layer", "from-port", "to-layer", "to-port"].map(|a| n.attribute(a).unwrap()))
            .collect();
        assert_eq!(
            edges,
            [
                ["0", "0", "7", "0"],
                ["5", "0", "7", "1"],
                ["6", "0", "7", "2"],
                ["7", "3", "3", "0"],
                ["2", "0", "3", "1"],
                ["3", "2", "4", "0"]
            ]
        );
        let offset = |id: &str| {
            let layer = document.descendants().find(|n| n.attribute("id") == Some(id)).unwrap();
            layer.children().find_map(|c| c.attribute("offset")).unwrap().to_owned()
        };
        assert_eq!((offset("5"), offset("6")), ("8".to_owned(), "0".to_owned()));
    }

    #[test]
    fn a_conversion_of_the_logits_and_a_result_without_a_name_do_not_matter() {
        let convert = XML
            .replace(r#" output_names="logits""#, "")
            .replace("</layers>", r#"<layer id="5" name="c" type="Convert" version="opset1" /></layers>"#)
            .replace(
                r#"<edge from-layer="3" from-port="2" to-layer="4" to-port="0" />"#,
                r#"<edge from-layer="3" from-port="2" to-layer="5" to-port="0" />
<edge from-layer="5" from-port="1" to-layer="4" to-port="0" />"#,
            );
        let adapted = adapt(&convert, &[1, -1]).unwrap();
        assert!(
            adapted.contains(r#"<edge from-layer="8" from-port="3" to-layer="3" to-port="0" />"#),
            "{adapted}"
        );
        assert!(
            adapted.contains(r#"<edge from-layer="0" from-port="0" to-layer="8" to-port="0" />"#),
            "{adapted}"
        );
    }

    #[test]
    fn other_graphs_are_refused_with_the_reason() {
        assert!(adapt(XML, &[1, 2]).unwrap_err().contains("-1"));
        assert!(adapt(&XML.replace("MatMul", "Add"), &[1, -1]).unwrap_err().contains("Add"));
        let two = XML.replace("</layers>", "<layer id=\"5\" name=\"other\" type=\"Result\" /></layers>");
        assert!(adapt(&two, &[1, -1]).is_ok());
        assert!(adapt(&two.replace("\"logits\"", "\"x\""), &[1, -1]).unwrap_err().contains("logits"));
        assert!(adapt("<net", &[1, -1]).is_err());
    }
}
