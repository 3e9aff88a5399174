# The page and nothing else, on a CPU. docs/deploy.md says how it is run.
FROM python:3.11-slim-bookworm

# What OpenCV is linked to; a Space reads the same list.
COPY packages.txt /tmp/
RUN apt-get update \
    && xargs -a /tmp/packages.txt apt-get install -y --no-install-recommends \
    && rm -rf /var/lib/apt/lists/* /tmp/packages.txt

WORKDIR /app
# torch's own index has it without CUDA, which would be several gigabytes for nothing.
COPY requirements.txt requirements-mcp.txt ./
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -r requirements-mcp.txt

RUN useradd --create-home --uid 1000 page && install -d -o page -g page /data
COPY . .

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860 \
    GRADIO_ANALYTICS_ENABLED=False \
    MSADEMO_DATA=/data/msademo
USER page
VOLUME /data
EXPOSE 7860
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/config', timeout=5)"]
CMD ["python", "app.py"]
