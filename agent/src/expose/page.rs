//! The live page at `/` and what it is made of, all of it in the program: nothing comes from elsewhere, and the browser
//! is told to fetch nothing from elsewhere. Its sources are in `agent/page`; uPlot is what set-up brought.

use axum::{
    Router,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
    routing::get,
};

use super::etag;

/// What the page may do: its own scripts, styles and questions, nothing inline, nothing from others, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// A file: where it is found, what it is, and its bytes.
type File = (&'static str, &'static str, &'static [u8]);

macro_rules! own {
    ($name:literal) => {
        include_bytes!(concat!("../../page/", $name))
    };
}

const FILES: [File; 14] = [
    ("/", HTML, own!("index.html")),
    ("/page/page.css", CSS, own!("page.css")),
    ("/page/theme.js", JS, own!("theme.js")),
    ("/page/main.js", JS, own!("main.js")),
    ("/page/api.js", JS, own!("api.js")),
    ("/page/text.js", JS, own!("text.js")),
    ("/page/spark.js", JS, own!("spark.js")),
    ("/page/list.js", JS, own!("list.js")),
    ("/page/chart.js", JS, own!("chart.js")),
    ("/page/vm.js", JS, own!("vm.js")),
    ("/page/events.js", JS, own!("events.js")),
    ("/page/agent.js", JS, own!("agent.js")),
    ("/page/uplot.js", JS, include_bytes!(concat!(env!("OUT_DIR"), "/uPlot.iife.min.js"))),
    ("/page/uplot.css", CSS, include_bytes!(concat!(env!("OUT_DIR"), "/uPlot.min.css"))),
];

/// The page's routes.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, bytes)| {
        let tag = etag::of(bytes);
        router.route(path, get(move |headers: HeaderMap| async move { file(&headers, kind, bytes, &tag) }))
    })
}

fn file(headers: &HeaderMap, kind: &'static str, bytes: &'static [u8], tag: &str) -> Response {
    let mut response = etag::answer(headers, kind, bytes, tag);
    let all = response.headers_mut();
    all.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    all.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    all.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str) -> &'static str {
        std::str::from_utf8(FILES.iter().find(|(known, ..)| *known == path).unwrap().2).unwrap()
    }

    #[test]
    fn all_that_the_page_names_is_served_and_nothing_is_fetched_from_elsewhere() {
        let quoted = |text: &str, before: &str| -> Vec<String> {
            text.split(before).skip(1).filter_map(|rest| rest.split('"').next().map(str::to_owned)).collect()
        };
        let html = text("/");
        let named = quoted(html, "href=\"page/").into_iter().chain(quoted(html, "src=\"page/"));
        let scripts = FILES.iter().filter(|(path, kind, _)| *kind == JS && !path.contains("uplot"));
        let imported = scripts.clone().flat_map(|(path, ..)| quoted(text(path), "from \"./"));
        let mut count = 0;
        for name in named.chain(imported) {
            count += 1;
            assert!(FILES.iter().any(|(path, ..)| *path == format!("/page/{name}")), "{name} is not served");
        }
        assert!(count > 10, "{count} names were found");
        for (path, ..) in scripts.chain([FILES.first().unwrap()]) {
            let elsewhere = text(path).replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("://"), "{path} names another place");
        }
    }

    #[test]
    fn nothing_inline_that_the_policy_refuses() {
        let html = text("/");
        assert!(!html.contains("style=") && !html.contains("<style") && !html.contains("onclick"));
        assert_eq!(html.matches("<script").count(), html.matches("<script src=").count());
    }
}
