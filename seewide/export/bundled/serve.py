"""python serve.py [PORT]: an HTTP API over the network. Needs litserve and python-multipart.

curl -F image=@photo.jpg http://127.0.0.1:8000/predict
"""

import io
import os
import sys

import litserve
import numpy as np
import onnxruntime
from fastapi import HTTPException
from PIL import Image
from predict import HERE, LABELS, classify, preprocess
from starlette.concurrency import run_in_threadpool
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse

LARGEST_UPLOAD = 20_000_000  # bytes
LARGEST_IMAGE = 50_000_000  # pixels
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # none that runs another program


def open_image(data):
    """Bytes of an upload -> (1, C, H, W). HTTPException of 4xx for anything but an image."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > LARGEST_IMAGE:
            raise HTTPException(413, f"images have at most {LARGEST_IMAGE} pixels")
        return preprocess(image)
    except HTTPException:
        raise
    except Exception as error:  # image readers fail on damaged bytes in any way
        raise HTTPException(400, f"not an image: {type(error).__name__}") from None


class Refuse(BaseHTTPMiddleware):
    """Requests that are no upload, or a broken or too large one, get a status of 4xx.

    Here and not in `decode_request`, whose error would be that of all requests of a batch.
    """

    async def dispatch(self, request, call_next):
        def refuse(status, reason):
            return JSONResponse({"detail": reason}, status)

        if request.method == "POST":
            if not request.headers.get("content-type", "").startswith("multipart/form-data"):
                return refuse(415, "send an image as multipart/form-data, in the field 'image'")
            length = request.headers.get("content-length", "")
            if not length.isdigit():
                return refuse(411, "send the length of the content")
            if int(length) > LARGEST_UPLOAD:
                return refuse(413, f"uploads have at most {LARGEST_UPLOAD} bytes")
            try:
                await request.body()
                upload = (await request.form()).get("image")
            except Exception:  # of the parser, or of a client that went away
                return refuse(400, "the form is malformed")
            if not hasattr(upload, "file"):
                return refuse(422, "send an image as the form field 'image'")
            try:
                await run_in_threadpool(open_image, await upload.read())
            except HTTPException as error:
                return refuse(error.status_code, error.detail)
        return await call_next(request)


class API(litserve.LitAPI):
    """Images in, the five likeliest classes out; waiting requests are run as one batch."""

    def setup(self, device):
        self.session = onnxruntime.InferenceSession(
            HERE / "model.onnx", providers=["CPUExecutionProvider"]
        )

    def decode_request(self, request):
        return open_image(request["image"].file.read())

    def batch(self, inputs):
        return np.concatenate(inputs)

    def predict(self, x):
        return classify(self.session, x)

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        output = output.reshape(-1)
        best = output.argsort()[::-1][:5]
        return {"classes": [{"label": LABELS[i], "probability": float(output[i])} for i in best]}


if __name__ == "__main__":
    batch = int(os.environ.get("BATCH", 8))
    api = API(max_batch_size=batch, batch_timeout=0.01)
    server = litserve.LitServer(api, accelerator="cpu", middlewares=[Refuse])
    server.run(port=int(sys.argv[1]) if len(sys.argv) > 1 else 8000, generate_client_file=False)
