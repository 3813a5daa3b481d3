//! One inference request with checked inputs and outputs.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use openvino::{ElementType, InferRequest, Shape, Tensor};

use super::{Element, Port, failed};
use crate::{CancelToken, Error};

/// An inference request of one compiled model.
pub(crate) struct Request {
    name: &'static str,
    inner: Inner,
}

/// By OpenVINO's C API, or by the shim.
enum Inner {
    Stock(InferRequest),
    Shim(qwen2vl_shim::Request),
}

impl Request {
    pub(super) fn new(name: &'static str, inner: InferRequest) -> Self {
        Self { name, inner: Inner::Stock(inner) }
    }

    pub(super) fn of_shim(name: &'static str, inner: qwen2vl_shim::Request) -> Self {
        Self { name, inner: Inner::Shim(inner) }
    }

    /// Sets an f32 input that `fill` writes in full.
    pub(crate) fn set_f32<E: From<Error>>(
        &mut self,
        input: Port<'_>,
        dims: &[usize],
        fill: impl FnOnce(&mut [f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.set(input, Element::F32, dims, fill)
    }

    /// Sets an i64 input that `fill` writes in full.
    pub(crate) fn set_i64(
        &mut self,
        input: Port<'_>,
        dims: &[usize],
        fill: impl FnOnce(&mut [i64]),
    ) -> Result<(), Error> {
        self.set(input, Element::I64, dims, |values| {
            fill(values);
            Ok(())
        })
    }

    /// Sets an i32 input that `fill` writes in full.
    pub(crate) fn set_i32(
        &mut self,
        input: Port<'_>,
        dims: &[usize],
        fill: impl FnOnce(&mut [i32]),
    ) -> Result<(), Error> {
        self.set(input, Element::I32, dims, |values| {
            fill(values);
            Ok(())
        })
    }

    fn set<T: qwen2vl_shim::Value, E: From<Error>>(
        &mut self,
        input: Port<'_>,
        element: Element,
        dims: &[usize],
        fill: impl FnOnce(&mut [T]) -> Result<(), E>,
    ) -> Result<(), E> {
        let inner = match &mut self.inner {
            Inner::Stock(inner) => inner,
            Inner::Shim(inner) => return inner.set(port_name(input), dims, fill).map_err(Error::from)?,
        };
        let describe = || format!("set input {input} of {} with shape {dims:?}", self.name);
        let fail = |e: &openvino::InferenceError| failed(&describe(), e);
        let dims_i64: Vec<i64> = dims.iter().map(|&d| i64::try_from(d).unwrap_or(i64::MAX)).collect();
        let shape = Shape::new(&dims_i64).map_err(|e| fail(&e))?;
        let mut tensor = Tensor::new(element.into(), &shape).map_err(|e| fail(&e))?;
        if dims.iter().all(|&d| d > 0) {
            // The element type was given above, so the view's type is right.
            fill(tensor.get_data_mut::<T>().map_err(|e| fail(&e))?)?;
        }
        let set = match input {
            Port::Only => inner.set_input_tensor(&tensor),
            Port::Named(name) => inner.set_tensor(name, &tensor),
        };
        Ok(set.map_err(|e| failed(&format!("set input {input} of {}", self.name), &e))?)
    }

    /// Runs the model.
    pub(crate) fn infer(&mut self) -> Result<(), Error> {
        match &mut self.inner {
            Inner::Stock(inner) => inner.infer().map_err(|e| failed(&format!("run {}", self.name), &e)),
            Inner::Shim(inner) => Ok(inner.infer()?),
        }
    }

    /// Runs the model, as far as it is not cancelled: with our kernels that ends it at once.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`], and what OpenVINO reports.
    pub(crate) fn infer_unless(&mut self, cancel: &CancelToken) -> Result<(), Error> {
        match &mut self.inner {
            Inner::Stock(_) => self.infer()?,
            Inner::Shim(inner) => _ = inner.infer_until(&|| cancel.is_cancelled())?,
        }
        if cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Reads an output as f32, widening f16 and bf16; the view ends before the request can run again.
    pub(crate) fn read_f32<R>(
        &mut self,
        output: Port<'_>,
        read: impl FnOnce(&[usize], &[f32]) -> R,
    ) -> Result<R, Error> {
        let inner = match &mut self.inner {
            Inner::Stock(inner) => inner,
            Inner::Shim(inner) => {
                let (dims, values) = inner.output(port_name(output))?;
                return Ok(read(&dims, values));
            }
        };
        let action = format!("read output {output} of {}", self.name);
        let fail = |e: &openvino::InferenceError| failed(&action, e);
        let tensor = match output {
            Port::Only => inner.get_output_tensor(),
            Port::Named(name) => inner.get_tensor(name),
        };
        let tensor = tensor.map_err(|e| fail(&e))?;
        let element = tensor.get_element_type().map_err(|e| fail(&e))?;
        let shape = tensor.get_shape().map_err(|e| fail(&e))?;
        let dims: Vec<usize> =
            shape.get_dimensions().iter().map(|&d| usize::try_from(d).unwrap_or(0)).collect();
        if dims.contains(&0) {
            return Ok(read(&dims, &[]));
        }
        // Each view has the element type that the tensor says it has.
        match element {
            ElementType::F32 => Ok(read(&dims, tensor.get_data::<f32>().map_err(|e| fail(&e))?)),
            ElementType::F16 => {
                let narrow = tensor.get_data::<f16>().map_err(|e| fail(&e))?;
                Ok(read(&dims, &narrow.to_f32_vec()))
            }
            ElementType::Bf16 => {
                let narrow = tensor.get_data::<bf16>().map_err(|e| fail(&e))?;
                Ok(read(&dims, &narrow.to_f32_vec()))
            }
            other => Err(Error::ModelMismatch {
                model: self.name,
                detail: format!("output {output} has element type {other}, expected a float"),
            }),
        }
    }
}

/// The shim's name of a port.
fn port_name(port: Port<'_>) -> &str {
    match port {
        Port::Only => "",
        Port::Named(name) => name,
    }
}

#[cfg(test)]
mod tests {
    use crate::native::{Native, Port};
    use crate::{EngineOptions, Error, library};

    /// `y = Convert(x)`.
    const CONVERT: &str = r#"<?xml version="1.0"?><net name="convert" version="11"><layers>
<layer id="0" name="x" type="Parameter" version="opset1"><data shape="4" element_type="f32"/>
<output><port id="0" precision="FP32" names="x"><dim>4</dim></port></output></layer>
<layer id="1" name="y" type="Convert" version="opset1"><data destination_type="TYPE"/>
<input><port id="0" precision="FP32"><dim>4</dim></port></input>
<output><port id="1" precision="PRECISION" names="y"><dim>4</dim></port></output></layer>
<layer id="2" name="r" type="Result" version="opset1">
<input><port id="0" precision="PRECISION"><dim>4</dim></port></input></layer></layers><edges>
<edge from-layer="0" from-port="0" to-layer="1" to-port="0"/><edge from-layer="1" from-port="1" to-layer="2" to-port="0"/>
</edges></net>"#;

    fn convert(kind: &str, precision: &str) -> Result<Vec<f32>, Error> {
        let name = format!("qwen2vl-convert-{kind}-{}.xml", std::process::id());
        let xml = std::env::temp_dir().join(name);
        std::fs::write(&xml, CONVERT.replace("TYPE", kind).replace("PRECISION", precision)).unwrap();
        std::fs::write(xml.with_extension("bin"), [0; 8]).unwrap();
        let mut native = Native::start(&EngineOptions::default())?;
        let compiled = native.compile("convert", &xml, &xml.with_extension("bin"), |_| Ok(()))?;
        let mut request = compiled.request()?;
        request.set_f32(Port::Named("x"), &[4], |x| {
            x.copy_from_slice(&[0.0, -1.5, 2.25, 300.0]);
            Ok::<(), Error>(())
        })?;
        request.infer()?;
        std::fs::remove_file(&xml).unwrap();
        std::fs::remove_file(xml.with_extension("bin")).unwrap();
        request.read_f32(Port::Named("y"), |_, y| y.to_vec())
    }

    #[test]
    fn narrow_floats_are_widened_and_other_types_refused() {
        if let Err(error) = library::locate(None) {
            return qwen2vl_testkit::skip(&error);
        }
        for (kind, precision) in [("f32", "FP32"), ("f16", "FP16"), ("bf16", "BF16")] {
            assert_eq!(convert(kind, precision).unwrap(), [0.0, -1.5, 2.25, 300.0], "{kind}");
        }
        let error = convert("i32", "I32").unwrap_err().to_string();
        assert!(error.contains("convert") && error.contains("\"y\"") && error.contains("float"), "{error}");
    }
}
