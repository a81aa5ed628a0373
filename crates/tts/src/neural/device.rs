//! Opens the device that a voice is to compute with.

use candle_core::{DType, Device};

use crate::DeviceChoice;

/// Opens the device.
///
/// # Errors
/// Why it cannot be used, for a person.
pub(crate) fn open(choice: DeviceChoice) -> Result<Device, String> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::Cpu),
        #[cfg(feature = "cuda")]
        DeviceChoice::Cuda(number) => {
            Device::new_cuda(number).map_err(|e| format!("cuda:{number} cannot be used: {e}"))
        }
        #[cfg(not(feature = "cuda"))]
        DeviceChoice::Cuda(number) => Err(format!(
            "cuda:{number} was asked for, and this program was built without CUDA (see docs/cuda.md)"
        )),
    }
}

/// How numbers are held on a device: half the memory where the device computes with it as fast.
pub(crate) fn dtype(device: &Device) -> DType {
    if device.is_cpu() {
        DType::F32
    } else {
        DType::BF16
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_build_without_cuda_says_so() {
        let told = open(DeviceChoice::Cuda(0)).unwrap_err();
        assert!(told.contains("without CUDA"), "{told}");
    }
}
