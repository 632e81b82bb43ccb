"""What request-info does at `/`, written with Flask, for comparison."""

from flask import Flask, Response, jsonify, render_template_string, request

FORMATS = ("text/plain", "text/html", "application/json")
EXPLANATION = "This is the address that the connection came from."
PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Your request</title></head>
<body>
<h1>Your request</h1>
<dl>
{% for label, value in fields %}<div><dt>{{ label }}</dt><dd>{{ value or "none" }}</dd></div>
{% endfor %}</dl>
<p>{{ explanation }}</p>
<h2>Headers</h2>
<table>
{% for name, value in headers %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}</table>
</body>
</html>
"""

app = Flask(__name__)


@app.route("/", methods=["GET", "POST"])
def report() -> Response:
    values = {
        "browser": request.headers.get("User-Agent"),
        "url": request.values.get("url") or request.headers.get("Referer"),
        "event": request.values.get("event"),
        "ip": request.remote_addr,
    }
    labels = ("Browser", "Url", "Event", "IP")
    fields = list(zip(labels, values.values(), strict=True))
    headers = list(request.headers)
    media_type = request.accept_mimetypes.best_match(FORMATS)
    if media_type == "text/plain":
        lines = "".join(f"{label:<8} {value or 'none'}\n" for label, value in fields)
        return Response(f"{lines}\n{EXPLANATION}\n", mimetype=media_type)
    if media_type == "text/html":
        page = render_template_string(PAGE, fields=fields, headers=headers, explanation=EXPLANATION)
        return Response(page, mimetype=media_type)
    if media_type == "application/json":
        return jsonify(values | {"explanation": EXPLANATION, "headers": headers})
    return Response("nothing that Accept names can be had here\n", 406, mimetype="text/plain")


@app.after_request
def finish(response: Response) -> Response:
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    response.headers["Vary"] = "Accept"
    return response
