// Answers the grader's cases, one per line of CASES: attempts allowed, the first that succeeds, a value.

use retry::{retry, Failure};

#[test]
fn answers() {
    for case in std::env::var("CASES").unwrap().lines() {
        let numbers: Vec<u64> = case.split(' ').map(|word| word.parse().unwrap()).collect();
        let mut calls = 0;
        let outcome = retry(numbers[0] as u32, |attempt| {
            calls += 1;
            let got = numbers[2] + u64::from(attempt);
            if u64::from(attempt) < numbers[1] { Err(got) } else { Ok(got) }
        });
        let said = match outcome {
            Ok(got) => format!("ok {got}"),
            Err(Failure::Exhausted(got)) => format!("exhausted {got}"),
            Err(Failure::NotTried) => "not tried".to_string(),
        };
        println!("\nanswer: {said} after {calls}");
    }
}
