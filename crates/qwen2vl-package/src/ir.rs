//! What an OpenVINO IR (version 10 or 11) says of itself: inputs, outputs, states, weights, the layers that tell a
//! model's dimensions. The weights are not read.
//!
//! Follows `src/frontends/ir` of OpenVINO: `<layers>` of `<layer type>` with `<data>` and ports, a `Const` naming its
//! bytes in the weights file by offset and size, and `<rt_info>` of what made the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use roxmltree::{Document, Node, ParsingOptions};

use crate::Error;
use crate::json::read_text_up_to;

/// The 2B's largest has 2.8 MB; 28 layers more are as much again.
const MAX_XML_BYTES: u64 = 64 << 20;
/// The 2B's language model has some 100,000.
const MAX_NODES: u32 = 8_000_000;

/// A dimension, `None` where it is open.
pub(crate) type Dims = Vec<Option<u64>>;

/// An input, output or state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    /// Empty for an output without a name.
    pub name: String,
    pub element_type: String,
    pub dims: Dims,
}

/// What was read of an IR.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ir {
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub states: Vec<Port>,
    /// Bytes of constants by element type, as `u4`; bytes that several constants share count once.
    pub constants: BTreeMap<String, u64>,
    /// Input 0 of each `ScaledDotProductAttention`: `[.., heads, n, head_dim]`.
    pub attention: Vec<Dims>,
    /// Input 1 of the first `Convolution`: `[width, channels, t, h, w]`.
    pub patch_weights: Option<Dims>,
    /// Last dimension of the first `Swish` and `Gelu`: the width of an MLP.
    pub swish_width: Option<u64>,
    pub gelu_width: Option<u64>,
    /// The version of OpenVINO that wrote it.
    pub openvino_version: Option<String>,
    /// How NNCF compressed the weights, as `int4_asym, group size 128`.
    pub compression: Option<String>,
}

impl Ir {
    /// Reads `xml`, whose weights lie beside it with the extension `.bin`; `shown` is its path in messages.
    pub fn read(xml: &Path, shown: &Path) -> Result<Self, Error> {
        let bin = xml.with_extension("bin");
        let weights = std::fs::metadata(&bin).map_err(|source| Error::Read { path: bin.clone(), source })?;
        let text = read_text_up_to(xml, MAX_XML_BYTES)?
            .ok_or_else(|| Error::Incomplete { path: parent(xml), missing: vec![file_name(xml)] })?;
        Self::parse(shown, &text, weights.len())
    }

    /// Parses the text of `path`, whose weights have `weight_bytes`.
    pub fn parse(path: &Path, text: &str, weight_bytes: u64) -> Result<Self, Error> {
        let failed = |reason: String| Error::Ir { path: path.to_owned(), reason };
        let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
        let document = Document::parse_with_options(text, options).map_err(|e| failed(e.to_string()))?;
        let net = document.root_element();
        let layers = child(net, "layers")
            .filter(|_| net.has_tag_name("net"))
            .ok_or_else(|| failed("it is no OpenVINO IR: it has no <net> with <layers>".to_owned()))?;
        let mut ir = Self::default();
        let mut shared = BTreeMap::new();
        for layer in layers.children().filter(|n| n.has_tag_name("layer")) {
            ir.add(layer, weight_bytes, &mut shared).map_err(|problem| {
                let name = layer.attribute("name").unwrap_or("without a name");
                let row = document.text_pos_at(layer.range().start).row;
                failed(format!("line {row}: layer {name}: {problem}"))
            })?;
        }
        if let Some(info) = child(net, "rt_info") {
            ir.openvino_version = value(info, &["Runtime_version"]).map(str::to_owned);
            ir.compression = compression(info);
        }
        Ok(ir)
    }

    fn add(
        &mut self,
        layer: Node<'_, '_>,
        weight_bytes: u64,
        shared: &mut BTreeMap<(u64, u64), ()>,
    ) -> Result<(), String> {
        let data = child(layer, "data");
        let attribute = |name: &str| data.and_then(|d| d.attribute(name));
        match layer.attribute("type").unwrap_or_default() {
            "Parameter" => self.inputs.push(Port {
                name: input_name(layer),
                element_type: attribute("element_type").unwrap_or_default().to_owned(),
                dims: shape(attribute("shape").unwrap_or_default())?,
            }),
            "Result" => self.outputs.push(Port {
                name: layer.attribute("output_names").unwrap_or_default().to_owned(),
                element_type: ports(layer, "input").next().map(precision).unwrap_or_default(),
                dims: ports(layer, "input").next().map(dims).transpose()?.unwrap_or_default(),
            }),
            "ReadValue" => self.states.push(Port {
                name: attribute("variable_id").unwrap_or_default().to_owned(),
                element_type: attribute("variable_type").unwrap_or_default().to_owned(),
                dims: shape(attribute("variable_shape").unwrap_or_default())?,
            }),
            "Const" => {
                let number = |name: &str| {
                    let text = attribute(name).ok_or_else(|| format!("it has no {name}"))?;
                    text.parse::<u64>().map_err(|_| format!("its {name} is {text:?}, it must be a number"))
                };
                let (offset, size) = (number("offset")?, number("size")?);
                let end = offset.saturating_add(size);
                if end > weight_bytes {
                    return Err(format!(
                        "its constant ends at byte {end} of the weights, which have {weight_bytes}: they are \
                         truncated, or of another model"
                    ));
                }
                if shared.insert((offset, size), ()).is_none() {
                    let of_type = attribute("element_type").unwrap_or_default().to_owned();
                    *self.constants.entry(of_type).or_default() += size;
                }
            }
            "ScaledDotProductAttention" => {
                self.attention.push(ports(layer, "input").next().map(dims).transpose()?.unwrap_or_default());
            }
            "Convolution" if self.patch_weights.is_none() => {
                self.patch_weights = ports(layer, "input").nth(1).map(dims).transpose()?;
            }
            "Swish" if self.swish_width.is_none() => self.swish_width = last_output_dim(layer)?,
            "Gelu" if self.gelu_width.is_none() => self.gelu_width = last_output_dim(layer)?,
            _ => {}
        }
        Ok(())
    }

    /// The input of this name.
    pub fn input(&self, name: &str) -> Option<&Port> {
        self.inputs.iter().find(|p| p.name == name)
    }

    /// The weights' types by bytes, the most first, without those under a thousandth: `u4 + u8`.
    pub fn precision(&self) -> String {
        let total: u64 = self.constants.values().sum();
        let mut types: Vec<_> = self.constants.iter().filter(|(_, bytes)| **bytes > total / 1000).collect();
        types.sort_by_key(|(_, bytes)| std::cmp::Reverse(**bytes));
        // Scales and zero points beside compressed weights are no precision of their own.
        let compressed = types.iter().any(|(t, _)| matches!(t.as_str(), "u4" | "i4" | "u8" | "i8" | "nf4"));
        let weights = |t: &str| match t {
            "f16" | "f32" | "bf16" => !compressed,
            // Shapes and axes.
            "i64" | "i32" | "boolean" => false,
            _ => true,
        };
        let names: Vec<&str> = types.iter().map(|(t, _)| t.as_str()).filter(|t| weights(t)).collect();
        names.join(" + ")
    }
}

/// `[2, ?, 128]`.
pub(crate) fn shape_text(dims: &[Option<u64>]) -> String {
    let dims: Vec<String> =
        dims.iter().map(|d| d.map_or_else(|| "?".to_owned(), |d| d.to_string())).collect();
    format!("[{}]", dims.join(", "))
}

fn compression(info: Node<'_, '_>) -> Option<String> {
    let nncf = child(child(info, "nncf")?, "weight_compression")?;
    let mode = value(nncf, &["mode"])?;
    Some(match value(nncf, &["group_size"]) {
        Some(group) if group != "-1" => format!("{mode}, group size {group}"),
        _ => mode.to_owned(),
    })
}

fn value<'a>(node: Node<'a, '_>, path: &[&str]) -> Option<&'a str> {
    path.iter().try_fold(node, |node, name| child(node, name))?.attribute("value")
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|n| n.has_tag_name(name))
}

fn ports<'a, 'i>(layer: Node<'a, 'i>, side: &str) -> impl Iterator<Item = Node<'a, 'i>> + use<'a, 'i> {
    child(layer, side).into_iter().flat_map(|s| s.children().filter(|n| n.has_tag_name("port")))
}

/// The name by which an input is set: that of its tensor, which an export gives, where it differs from its layer's. Of
/// several the last: PyTorch's own numbers come before.
fn input_name(layer: Node<'_, '_>) -> String {
    let tensor = ports(layer, "output").next().and_then(|port| port.attribute("names"));
    let last = tensor.and_then(|names| names.split(',').map(str::trim).rfind(|name| !name.is_empty()));
    let own = layer.attribute("name").unwrap_or_default();
    let is_own = tensor.is_some_and(|names| names.split(',').any(|name| name.trim() == own));
    last.filter(|_| !is_own).unwrap_or(own).to_owned()
}

/// `FP32` as `f32`.
fn precision(port: Node<'_, '_>) -> String {
    port.attribute("precision").unwrap_or_default().to_lowercase().replace("fp", "f")
}

fn dims(port: Node<'_, '_>) -> Result<Dims, String> {
    port.children().filter(|n| n.has_tag_name("dim")).map(|n| dim(n.text().unwrap_or_default())).collect()
}

fn shape(text: &str) -> Result<Dims, String> {
    text.split(',').map(str::trim).filter(|d| !d.is_empty()).map(dim).collect()
}

/// A number; `-1`, `?` and ranges such as `1..8` are open.
fn dim(text: &str) -> Result<Option<u64>, String> {
    match text.trim() {
        "-1" | "?" => Ok(None),
        range if range.contains("..") => Ok(None),
        number => number.parse().map(Some).map_err(|_| format!("its dimension is {number:?}")),
    }
}

fn last_output_dim(layer: Node<'_, '_>) -> Result<Option<u64>, String> {
    Ok(ports(layer, "output").next().map(dims).transpose()?.and_then(|d| d.last().copied().flatten()))
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(path).to_owned()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(layers: &str, weight_bytes: u64) -> Result<Ir, String> {
        let text = format!(
            r#"<?xml version="1.0"?><net name="m" version="11"><layers>{layers}</layers><edges/><rt_info>
            <Runtime_version value="2026.4.1"/><nncf><weight_compression><group_size value="32"/>
            <mode value="int4_asym"/></weight_compression></nncf></rt_info></net>"#
        );
        Ir::parse(Path::new("m.xml"), &text, weight_bytes).map_err(|e| e.to_string())
    }

    fn constant(element_type: &str, offset: &str, size: &str) -> String {
        format!(
            r#"<layer id="1" name="w" type="Const"><data element_type="{element_type}" shape="2" offset="{offset}"
            size="{size}"/></layer>"#
        )
    }

    #[test]
    fn ports_states_and_weights_are_read() {
        let layers = r#"
            <layer id="0" name="x" type="Parameter"><data shape="?,1..8,128" element_type="f32"/></layer>
            <layer id="1" name="r" type="ReadValue"><data variable_id="kv" variable_type="f32" variable_shape="?,2,?,32"/>
            </layer><layer id="2" name="y" type="Result" output_names="logits"><input><port id="0" precision="FP32">
            <dim>-1</dim><dim>7</dim></port></input></layer>"#
            .to_owned()
            + &constant("u4", "0", "100")
            + &constant("u4", "0", "100")
            + &constant("f16", "100", "10");
        let ir = parse(&layers, 110).unwrap();
        assert_eq!(ir.input("x").unwrap().dims, [None, None, Some(128)]);
        assert_eq!(
            (ir.states[0].name.as_str(), shape_text(&ir.states[0].dims)),
            ("kv", "[?, 2, ?, 32]".to_owned())
        );
        assert_eq!((ir.outputs[0].name.as_str(), ir.outputs[0].element_type.as_str()), ("logits", "f32"));
        assert_eq!(ir.constants["u4"], 100);
        assert_eq!(ir.precision(), "u4");
        assert_eq!(ir.compression.as_deref(), Some("int4_asym, group size 32"));
        assert_eq!(ir.openvino_version.as_deref(), Some("2026.4.1"));
    }

    #[test]
    fn inputs_have_the_names_of_their_tensors() {
        let input = |layer: &str, names: &str| {
            let text = format!(
                r#"<layer id="0" name="{layer}" type="Parameter"><data shape="?" element_type="i64"/><output><port
                id="0" precision="I64" {names}/></output></layer>"#
            );
            parse(&text, 0).unwrap().inputs[0].name.clone()
        };
        assert_eq!(input("x", ""), "x");
        assert_eq!(input("x", r#"names="x""#), "x");
        assert_eq!(input("Parameter_12", r#"names="inputs_embeds""#), "inputs_embeds");
        assert_eq!(input("Parameter_12", r#"names="3,repetition_factor""#), "repetition_factor");
        assert_eq!(input("patches", r#"names="patches,0""#), "patches");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (layers, says) in [
            (
                constant("f32", "90", "20"),
                "line 1: layer w: its constant ends at byte 110 of the weights, which have 100",
            ),
            (constant("f32", "18446744073709551615", "9"), "truncated"),
            (constant("f32", "x", "9"), "its offset is \"x\""),
            (r#"<layer type="Const" name="w"/>"#.to_owned(), "it has no offset"),
            (
                r#"<layer type="Parameter" name="p"><data shape="a"/></layer>"#.to_owned(),
                "its dimension is \"a\"",
            ),
            ("<layer>".to_owned(), "expected 'layer' tag"),
        ] {
            let error = parse(&layers, 100).unwrap_err();
            assert!(error.starts_with("m.xml") && error.contains(says), "{error}");
        }
        for text in
            ["", "PK", "<a/>", "<net/>", "<!DOCTYPE x [<!ENTITY e \"e\">]><net><layers>&e;</layers></net>"]
        {
            assert!(Ir::parse(Path::new("m.xml"), text, 0).is_err(), "{text}");
        }
    }
}
