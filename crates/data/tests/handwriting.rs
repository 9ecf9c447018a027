//! The conversion of handwriting, verified on the digits of MNIST.
#![cfg(feature = "embedded-mnist")]

use std::io::Cursor;

use data::{Dataset, Picture, Preparation};
use image::imageops::{self, FilterType};
use image::{GrayImage, ImageFormat, Luma};

#[test]
fn reproduces_mnist_digits_drawn_on_paper() {
    let test = Dataset::embedded_mnist().unwrap().test;
    let mut difference = 0.0;
    for index in 0..200 {
        let digit = GrayImage::from_raw(28, 28, test.pixels(index).unwrap().into_owned()).unwrap();
        let large = imageops::resize(&digit, 140, 140, FilterType::CatmullRom);
        let mut paper = GrayImage::from_pixel(300, 240, Luma([255]));
        for (x, y, pixel) in large.enumerate_pixels() {
            paper.put_pixel(x + 130, y + 20, Luma([255 - pixel.0[0]]));
        }
        let mut png = Cursor::new(Vec::new());
        paper.write_to(&mut png, ImageFormat::Png).unwrap();
        let picture = Picture::decode(png.get_ref()).unwrap();
        let prepared = Preparation::Handwriting
            .prepare(&picture, [1, 28, 28])
            .unwrap();
        let expected = test.pixels(index).unwrap();
        let pairs = prepared.iter().zip(expected.iter());
        difference += pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
    }
    let mean = difference / (200.0 * 784.0);
    // A translation by one pixel gives more than 20.
    assert!(mean < 10.0, "{mean} of 255 on average");
}
