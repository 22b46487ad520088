/* page_files.h: what is embedded, for page_data.S; one row a file: symbol, path of the URL, file in the tree, content
 * type. CHART_JS is the file of Chart.js, named by the Makefile. Everything is one origin, so the page needs no other
 * network. */
#define PAGE_HTML "text/html; charset=utf-8"
#define PAGE_CSS  "text/css; charset=utf-8"
#define PAGE_JS   "text/javascript; charset=utf-8"

#define PAGE_FILES(X)                                                                                                  \
    X(index, "/", "src/serve/page/index.html", PAGE_HTML)                                                              \
    X(page_css, "/page.css", "src/serve/page/page.css", PAGE_CSS)                                                      \
    X(chat_css, "/chat.css", "src/serve/page/chat.css", PAGE_CSS)                                                      \
    X(icon, "/icon.svg", "src/serve/page/icon.svg", "image/svg+xml")                                                   \
    X(main, "/main.js", "src/serve/page/main.js", PAGE_JS)                                                             \
    X(api, "/api.js", "src/serve/page/api.js", PAGE_JS)                                                                \
    X(chat, "/chat.js", "src/serve/page/chat.js", PAGE_JS)                                                             \
    X(answer, "/answer.js", "src/serve/page/answer.js", PAGE_JS)                                                       \
    X(text, "/text.js", "src/serve/page/text.js", PAGE_JS)                                                             \
    X(dial, "/dial.js", "src/serve/page/dial.js", PAGE_JS)                                                             \
    X(format, "/format.js", "src/serve/page/format.js", PAGE_JS)                                                       \
    X(metrics, "/metrics.js", "src/serve/page/metrics.js", PAGE_JS)                                                    \
    X(charts, "/charts.js", "src/serve/page/charts.js", PAGE_JS)                                                       \
    X(chart, "/chart.js", CHART_JS, PAGE_JS)
