/* html_page.h: the fixed parts of the evaluation page: style and script. */
#ifndef CLI_HTML_PAGE_H
#define CLI_HTML_PAGE_H

extern const char html_page_style[];  /* between <style> and </style> */
extern const char html_page_script[]; /* after Chart.js; reads the element "data", draws on the canvas "chart" */

#endif
