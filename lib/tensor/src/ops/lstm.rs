//! Gates of a long short-term memory (doi 10.1162/neco.1997.9.8.1735).

use mlx_rs::Array;
use mlx_rs::error::Result;
use mlx_rs::ops::{sigmoid, split_equal, tanh};

use super::activation::Activation;
use crate::array::elements;

/// Step in MLX: the next hidden state and cell.
pub fn mlx(gates: &Array, cell: Option<&Array>) -> Result<[Array; 2]> {
    let [input, forget, new, output] = &split_equal(gates, 4, -1)?[..] else {
        return Err("an LSTM has four gates".into());
    };
    let mut next = sigmoid(input)?.multiply(tanh(new)?)?;
    if let Some(cell) = cell {
        next = sigmoid(forget)?.multiply(cell)?.add(next)?;
    }
    Ok([sigmoid(output)?.multiply(tanh(&next)?)?, next])
}

/// Step on the CPU: the next hidden state and cell.
pub fn cpu(gates: &Array, cell: Option<&Array>) -> Result<[Array; 2]> {
    let size = gates.size() / 4;
    let sums = elements(gates)?;
    let open = |gate: usize, i: usize| Activation::Sigmoid.of(sums[gate * size + i]);
    let cell = cell.map(elements).transpose()?;
    let next = |i: usize| {
        let kept = cell.map_or(0.0, |cell| open(1, i) * cell[i]);
        kept + open(0, i) * sums[2 * size + i].tanh()
    };
    let next: Vec<f32> = (0..size).map(next).collect();
    let hidden: Vec<f32> = next.iter().enumerate().map(|(i, c)| open(3, i) * c.tanh()).collect();
    let shape = [1, 1, size as i32];
    Ok([Array::from_slice(&hidden, &shape), Array::from_slice(&next, &shape)])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test fails by panicking

    use super::super::scan::tests::{alike, some};
    use super::*;

    #[test]
    fn both_forms_agree_with_and_without_a_cell() {
        let (gates, cell) = (some(&[1, 1, 96], 1), some(&[1, 1, 24], 2));
        for cell in [None, Some(&cell)] {
            let (cpu, mlx) = (cpu(&gates, cell).unwrap(), mlx(&gates, cell).unwrap());
            cpu.iter().zip(&mlx).for_each(|(cpu, mlx)| alike(cpu, mlx));
        }
    }
}
