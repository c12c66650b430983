// Answers the grader's cases, one per line of CASES: a list of numbers.

use numbers::{parse_numbers, BadNumber};

#[test]
fn answers() {
    for case in std::env::var("CASES").unwrap().lines() {
        let said = match parse_numbers(case) {
            Ok(numbers) => {
                let words: Vec<String> = numbers.iter().map(|number: &i64| number.to_string()).collect();
                format!("ok {}", words.join(","))
            }
            Err(BadNumber { index, value }) => format!("bad {index} {value}"),
        };
        println!("\nanswer: {said}");
    }
}
